"""○ adapter · A lock on a data directory: a second server on the same files refuses to start."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from perdure_processor.model.errors import DirectoryLocked

LOCK_FILE = "perdure.lock"


class DirectoryLock:
    """Holds a directory from construction to `release`, or until the process ends however it ends.

    The lock belongs to the open file, not to the file's existence: a crash leaves nothing to clean up.
    The file stays after `release`, since removing it would let two later servers lock two different files."""

    def __init__(self, directory: Path) -> None:
        """Lock `directory`, made if missing; raises DirectoryLocked naming the holder's process id."""
        directory.mkdir(parents=True, exist_ok=True)
        self._file: int | None = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            if not isinstance(error, BlockingIOError):
                raise
            raise DirectoryLocked(
                f"{directory} belongs to a running server (process id {holder}); "
                "stop that one or choose another directory"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let the next server in; calling it again does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable: files made, renamed or removed in it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
