"""○ adapter · SegmentChain: the segments in use, the reserve that follows them, and their removal when trimmed.

The slow work on files is done by a thread of its own; what is here only decides and takes over the results.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from perdure_processor.log import segments
from perdure_processor.log.frames import SEGMENT_HEADER_SIZE
from perdure_processor.log.index import PartitionIndex
from perdure_processor.log.segments import FULL_ERRNOS, Disk, Recovered, Segment
from perdure_processor.log.worker import Worker
from perdure_processor.model.limits import LOG_RESERVE_RETRY_S

_logger = logging.getLogger(__name__)


class SegmentChain:
    """Where the log's next frame goes: `position` in `active`."""

    def __init__(
        self,
        directory: Path,
        recovered: Recovered,
        segment_bytes: int,
        disk: Disk,
        loop: AbstractEventLoop,
        *,
        settled: Callable[[], None],
        failed: Callable[[Exception], object],
    ) -> None:
        """`settled` is called when an attempt to make the reserve has ended; `failed` if a file operation did."""
        self._directory = directory
        self._log_id = recovered.log_id
        self._segment_bytes = segment_bytes
        self._disk = disk
        self._loop = loop
        self._settled = settled
        self._failed = failed
        self._thread = Worker("perdure-log-files", loop)
        # The next segment, ready to be written to; None while it is being made, or the disk is full.
        self._reserve = _take_reserve(recovered, segment_bytes)
        # Oldest first.
        self._segments = {segment.number: segment for segment in recovered.segments}
        self.active = recovered.segments[-1]
        self.position = recovered.position
        # Whether a reserve is being made; and why the last attempt found no room, until when that is taken for true.
        self.allocating = False
        self.full_reason = ""
        self._allocate_again_at = 0.0
        self._removing = False
        self._closed = False
        if self._reserve is None:
            self.allocate()

    def segment(self, number: int) -> Segment:
        return self._segments[number]

    def has_room(self, size: int) -> bool:
        """Whether this many bytes fit into the active segment, which may be a new one from here on."""
        if self.position + size <= self.active.size:
            return True
        reserve = self._reserve
        if reserve is None:
            return False
        assert SEGMENT_HEADER_SIZE + size <= reserve.size, "a frame of any size fits into an empty segment"
        self._reserve = None
        self.active = self._segments[reserve.number] = reserve
        self.position = SEGMENT_HEADER_SIZE
        self.allocate()
        return True

    def allocate(self) -> bool:
        """See to it that the reserve is being made; False if there was no room for it a moment ago."""
        if self.allocating:
            return True
        if self._loop.time() < self._allocate_again_at:
            return False
        self.allocating = True
        number = self.active.number + 1
        make = partial(segments.create, self._directory, number, self._log_id, self._segment_bytes, self._disk)
        self._thread.submit(make, self._allocated)
        return True

    def remove_trimmed(self, indexes: Iterable[PartitionIndex], synced_offset: int) -> None:
        """Remove the oldest segment if no partition needs it; one at a time, so that none goes before an older one."""
        if self._removing or self._closed or len(self._segments) < 2:
            return
        oldest, following = list(self._segments.values())[:2]
        # The following one must durably say what it carries before this one goes.
        if following.first_offset is None or following.first_offset >= synced_offset:
            return
        if any(index.needs(oldest.number) for index in indexes):
            return
        del self._segments[oldest.number]
        for index in indexes:
            index.forget(oldest.number)
        oldest.close()
        self._removing = True
        ended = partial(self._removed, indexes, synced_offset)
        self._thread.submit(partial(segments.remove, oldest.path), ended)

    def close(self) -> None:
        """Wait for the thread and close the files."""
        self._closed = True
        self._thread.stop()
        for segment in self._segments.values():
            segment.close()
        if self._reserve is not None:
            self._reserve.close()

    def _allocated(self, segment: Segment | None, error: Exception | None) -> None:
        self.allocating = False
        self._reserve = segment
        if isinstance(error, OSError) and error.errno in FULL_ERRNOS:
            self.full_reason = f"disk full: no room for the log's next segment in {self._directory}"
            self._allocate_again_at = self._loop.time() + LOG_RESERVE_RETRY_S
            _logger.warning("%s", self.full_reason)
        elif error is not None:
            self._failed(error)
        self._settled()

    def _removed(self, indexes: Iterable[PartitionIndex], synced_offset: int, _: None, error: Exception | None) -> None:
        self._removing = False
        if error is not None:
            self._failed(error)
        else:
            self.remove_trimmed(indexes, synced_offset)


def _take_reserve(recovered: Recovered, segment_bytes: int) -> Segment | None:
    """Take the empty segment after the active one out of `recovered`, if it is of the size now asked for."""
    unused = recovered.segments[recovered.active + 1 :]
    del recovered.segments[recovered.active + 1 :]
    if len(unused) == 1 and unused[0].size == segment_bytes:
        return unused[0]
    for segment in reversed(unused):
        segment.close()
        segments.remove(segment.path)
    return None
