"""● core · The errors of this room, by who must act.

PartitionStopped      this partition stops, an operator reads the message
  LogGap              the log starts after the position we must read from
  AheadOfLog          the store has applied more than the log holds
  UpgradeRequired     bytes of a version or tag that this release does not know
  CorruptStore        bytes that no release can have written
StoreFull             no room for what is to be flushed: later
LogDamaged            the log's file is broken before its end: refuse to start, name file and offset
DirectoryLocked       another server uses this data directory
"""

from __future__ import annotations


class PartitionStopped(Exception):
    """This replica cannot go on without an operator; nothing is skipped silently."""


class LogGap(PartitionStopped):
    """Records that this replica has not applied are no longer in the log."""


class AheadOfLog(PartitionStopped):
    """The store knows records that the log has lost, or the log belongs to another cluster."""


class UpgradeRequired(PartitionStopped):
    """Written by a newer release; start that release instead."""


class CorruptStore(PartitionStopped):
    """Bytes that no release has written: restore from a copy."""


class StoreFull(Exception):
    """The disk has no room for a flush; nothing was written, and there may be room later."""


class LogDamaged(Exception):
    """A frame in the middle of the log is broken; what follows it cannot be trusted."""


class DirectoryLocked(Exception):
    """The data directory belongs to a running server."""
