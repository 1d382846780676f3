"""LocalLog on a disk that fails, fills up, hangs or is slow: who is told what, and what is written when."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from perdure_processor.log import Appended, Outcome, Refused, Unknown
from perdure_processor.log.local import SEGMENT_BYTES_MIN, Fsync, LocalLog
from perdure_processor.model.limits import LOG_FRAME_BYTES_MAX, LOG_RESERVE_RETRY_S
from support.logs import EIO, P0, P1, SetClock, WatchedDisk, append, payloads, start_append


def open_log(
    directory: Path, disk: WatchedDisk, *, fsync: Fsync = "always", queue_bytes_max: int = 8 << 20
) -> LocalLog:
    return LocalLog.open(
        directory,
        clock=SetClock(),
        fsync=fsync,
        segment_bytes=SEGMENT_BYTES_MIN,
        queue_bytes_max=queue_bytes_max,
        disk=disk.disk(),
    )


def test_appends_of_one_turn_are_one_write_and_one_sync(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk)
        disk.events.clear()
        await asyncio.gather(*[start_append(log, (P0, P1)[n % 2], b"%d" % n) for n in range(40)])
        assert disk.events == ["write", "sync"]
        await log.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["sync", "write", "short write"])
def test_an_error_makes_what_was_written_unknown_and_refuses_the_rest(tmp_path: Path, fault: str) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk)
        await append(log, P0, b"good")
        disk.sync_error = EIO if fault == "sync" else None
        disk.write_error = EIO if fault == "write" else None
        disk.short_write = fault == "short write"
        lost = [start_append(log, partition, b"lost") for partition in (P0, P1)]
        assert [type(outcome) for outcome in await asyncio.gather(*lost)] == [Unknown, Unknown]
        # The disk answers again, but the page cache may not hold what the disk does: it stays that way.
        disk.sync_error, disk.write_error, disk.short_write = None, None, False
        disk.events.clear()
        refused = await start_append(log, P0, b"later")
        assert isinstance(refused, Refused)
        assert "until a restart" in refused.reason
        assert disk.events == []
        assert await payloads(log, P0) == [b"good"], "what was acknowledged can still be read"
        assert log.synced_offset == 1
        await log.close()
        assert disk.events == [], "closing does not sync after a failed sync"

        log = open_log(tmp_path, disk)
        assert await payloads(log, P0) in ([b"good"], [b"good", b"lost"])
        assert isinstance(await start_append(log, P0, b"after the restart"), Appended)
        await log.close()

    asyncio.run(scenario())


async def make_syncs_slow(log: LocalLog, disk: WatchedDisk) -> None:
    """Append until the log has noticed that its syncs belong on the other thread."""
    disk.slow_seconds = 0.005
    while not log._sync_thread._thread:
        await append(log, P0, b"slow")
    disk.slow_seconds = 0.0


def test_a_frame_is_written_only_after_the_sync_of_the_one_before(tmp_path: Path) -> None:
    """With the sync on its thread and hanging, appends gather, the loop turns, and nothing is written."""

    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk)
        await make_syncs_slow(log, disk)
        disk.events.clear()
        disk.running.clear()
        hanging = start_append(log, P0, b"hanging")
        for _ in range(10):
            await asyncio.sleep(0)
        gathering = [start_append(log, P0, b"gathering") for _ in range(5)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not hanging.done()
        assert disk.events in ([], ["write"]), "at most the one write that waits for its sync"
        disk.running.set()
        first = await hanging
        others = await asyncio.gather(*gathering)
        assert disk.events == ["write", "sync", "write", "sync"]
        assert [type(outcome) for outcome in (first, *others)] == [Appended] * 6
        await log.close()

    asyncio.run(scenario())


def test_a_sync_that_fails_on_the_thread_poisons_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk)
        await make_syncs_slow(log, disk)
        disk.running.clear()
        in_flight = start_append(log, P0, b"in flight")
        for _ in range(3):
            await asyncio.sleep(0)
        gathered = start_append(log, P0, b"gathered, never written")
        disk.sync_error = EIO
        disk.running.set()
        assert isinstance(await in_flight, Unknown)
        assert isinstance(await gathered, Refused)
        await log.close()

    asyncio.run(scenario())


def test_a_slow_disk_moves_the_syncs_to_the_thread_and_a_fast_one_brings_them_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk)
        await append(log, P0, b"fast")
        assert log._sync_thread._thread is None
        await make_syncs_slow(log, disk)
        before = log._thread_syncs
        frames = 0
        while log._sync_seconds > 0.001:
            await append(log, P0, b"fast again")
            frames += 1
            assert frames < 5_000, "the syncs stay on the thread"
        assert log._thread_syncs > before
        assert len(await payloads(log, P0)) == await log.end(P0)
        await log.close()

    asyncio.run(scenario())


def test_interval_syncs_later_and_never_syncs_when_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path / "interval", disk, fsync=("interval", 1))
        disk.events.clear()
        await append(log, P0, b"x")
        assert disk.events == ["write"], "acknowledged once it is written"
        assert log.synced_offset == 0
        while log.synced_offset == 0:
            await asyncio.sleep(0.001)
        assert disk.events == ["write", "sync"]
        await log.close()

        log = open_log(tmp_path / "never", disk, fsync="never")
        disk.events.clear()
        await append(log, P0, b"x")
        assert (disk.events, log.synced_offset) == (["write"], 0)
        await log.close()
        assert disk.events == ["write", "sync"]

    asyncio.run(scenario())


def test_a_sync_does_not_wait_for_what_is_appended_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path, WatchedDisk(), fsync="never")
        stopped = False

        def again(outcome: Outcome) -> None:
            if not stopped:
                log.append(P0, b"x", again)

        log.append(P0, b"x", again)
        before = (await append(log, P1, b"x")).offset
        assert await asyncio.wait_for(log.sync(), 5) > before
        stopped = True
        await log.close()

    asyncio.run(scenario())


def test_a_failed_later_sync_is_told_to_who_waits_for_it_and_to_all_that_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk, fsync="never")
        await append(log, P0, b"x")
        disk.sync_error = EIO
        with pytest.raises(OSError, match="until a restart"):
            await log.sync()
        assert log.synced_offset == 0
        assert isinstance(await start_append(log, P0, b"x"), Refused)
        await log.close()

    asyncio.run(scenario())


def test_a_full_disk_refuses_before_writing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ahead = 0.0
        real_time = loop.time
        loop.time = lambda: real_time() + ahead  # type: ignore[method-assign]

        disk = WatchedDisk()
        log = open_log(tmp_path, disk)
        await append(log, P0, bytes(100))
        disk.free = 0
        acknowledged = 1
        refused: Outcome
        while isinstance(refused := await start_append(log, P0, bytes(700_000)), Appended):
            acknowledged += 1
        assert acknowledged > 4, "the reserve was there before the disk was full, and was used"
        assert isinstance(refused, Refused)
        assert "disk full" in refused.reason
        written = disk.events.count("write")
        assert isinstance(await start_append(log, P0, bytes(700_000)), Refused)
        assert disk.events.count("write") == written, "refused before writing"
        assert len(await payloads(log, P0)) == acknowledged

        disk.free = 1 << 40
        ahead += LOG_RESERVE_RETRY_S + 0.1
        await append(log, P0, bytes(700_000))
        await log.close()
        log = open_log(tmp_path, disk)
        assert len(await payloads(log, P0)) == acknowledged + 1
        await log.close()

    asyncio.run(scenario())


def test_a_disk_that_fills_up_while_a_segment_is_made_is_full_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        real = disk.disk()

        def no_space(file: int, data: object, position: int) -> int:
            if len(data) == 1 and full:  # type: ignore[arg-type]
                raise OSError(errno.ENOSPC, "No space left on device")
            return real.write(file, data, position)  # type: ignore[arg-type]

        full = False
        broken = type(real)(write=no_space, sync=real.sync, free_bytes=real.free_bytes)
        log = LocalLog.open(tmp_path, clock=SetClock(), segment_bytes=SEGMENT_BYTES_MIN, disk=broken)
        await append(log, P0, b"x")
        full = True
        while isinstance(outcome := await start_append(log, P0, bytes(700_000)), Appended):
            pass
        assert isinstance(outcome, Refused)
        assert "disk full" in outcome.reason
        await log.close()
        assert list(tmp_path.glob("*.tmp")) == []

    asyncio.run(scenario())


def test_a_full_queue_refuses_in_order_and_takes_again_once_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk, queue_bytes_max=1_000_000)
        told: list[tuple[int, type[Outcome]]] = []
        for number, size in enumerate((600_000, 300_000, 300_000, 10)):
            log.append(P0, bytes(size), lambda outcome, n=number: told.append((n, type(outcome))))  # type: ignore[misc]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The last one would have fitted, but must not overtake the one before it.
        assert told == [(0, Appended), (1, Appended), (2, Refused), (3, Refused)]
        await append(log, P0, bytes(300_000))
        await log.close()

    asyncio.run(scenario())


def test_a_burst_larger_than_a_frame_is_cut_into_frames(tmp_path: Path) -> None:
    """A command of many parts is appended in one turn; a frame stays small, and the order stays."""

    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path, disk)
        disk.events.clear()
        parts = [bytes([n]) * 700_000 for n in range(11)]
        outcomes = await asyncio.gather(*[start_append(log, P0, part) for part in parts])
        assert [type(outcome) for outcome in outcomes] == [Appended] * 11
        per_frame = LOG_FRAME_BYTES_MAX // 700_020
        assert disk.events == ["write", "sync"] * -(-11 // per_frame)
        assert await payloads(log, P0) == parts
        await log.close()
        log = open_log(tmp_path, disk)
        assert await payloads(log, P0) == parts
        await log.close()

    asyncio.run(scenario())
