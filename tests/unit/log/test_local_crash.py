"""LocalLog after a crash: a torn tail is cut off, damage is refused, nothing acknowledged is lost (correctness 8).

The image of a crash is a copy of the directory: what the next process would find.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from itertools import count
from pathlib import Path

import pytest

from perdure_processor.log import Unknown, frames
from perdure_processor.log.local import SEGMENT_BYTES_MIN, Fsync, LocalLog
from perdure_processor.model.errors import DirectoryLocked, LogDamaged, LogGap, UpgradeRequired
from support.logs import EIO, P0, P1, P2, SetClock, WatchedDisk, append, payloads, start_append

FIRST_SEGMENT = "segment-0000000000.log"
_images = count()


def open_log(directory: Path, *, fsync: Fsync = "always", disk: WatchedDisk | None = None) -> LocalLog:
    return LocalLog.open(
        directory,
        clock=SetClock(),
        fsync=fsync,
        segment_bytes=SEGMENT_BYTES_MIN,
        disk=None if disk is None else disk.disk(),
    )


def crash_image(directory: Path) -> Path:
    image = directory.parent / f"image-{next(_images)}"
    # A segment that is being made disappears under the copy.
    return shutil.copytree(directory, image, ignore=shutil.ignore_patterns("*.tmp"))


def frames_of(segment: Path) -> list[tuple[int, int]]:
    """(begin, end) of each frame in a segment file."""
    data = segment.read_bytes()
    header = frames.parse_segment_header(data)
    assert header is not None
    found = []
    at = frames.SEGMENT_HEADER_SIZE
    while (frame := frames.parse_frame(data, at, header[0])) is not None:
        found.append((at, frame.end))
        at = frame.end
    return found


def overwrite(file: Path, position: int, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(position)
        opened.write(data)


async def write_frames(directory: Path, number: int, fsync: Fsync = "always") -> Path:
    """A closed log with this many frames of two records each, one for each of two partitions."""
    log = open_log(directory, fsync=fsync)
    for n in range(number):
        both = [start_append(log, partition, b"frame %d" % n) for partition in (P0, P1)]
        await asyncio.gather(*both)
    await log.close()
    return directory / FIRST_SEGMENT


def test_a_torn_last_frame_is_cut_off_wherever_it_tore(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        segment = await write_frames(tmp_path / "log", 3)
        begin, end = frames_of(segment)[-1]
        whole = segment.read_bytes()
        for cut in [begin, *range(begin + 1, end - 1, 9), end - 1]:
            # All before the cut was written, nothing after it; at its very beginning there is no tail at all.
            overwrite(segment, begin, whole[begin:cut] + bytes(end - cut))
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                log = open_log(tmp_path / "log")
            warned = any("cut off by a crash" in message for message in caplog.messages)
            assert warned == (cut > begin)
            assert await payloads(log, P0) == [b"frame 0", b"frame 1"]
            assert await log.end(P1) == 4
            await log.close()
            assert segment.read_bytes()[begin:] == bytes(len(whole) - begin), "no rest that a later frame would meet"

    asyncio.run(scenario())


def test_sectors_of_the_last_frame_may_be_written_in_any_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        segment = await write_frames(tmp_path / "log", 3)
        begin, _ = frames_of(segment)[-1]
        overwrite(segment, begin, bytes(frames.FRAME_HEADER_SIZE))  # its end reached the disk, its header did not
        log = open_log(tmp_path / "log")
        outcome = await append(log, P0, b"new")
        assert (outcome.offset, outcome.position) == (4, 3)
        await log.close()
        log = open_log(tmp_path / "log")
        assert await payloads(log, P0) == [b"frame 0", b"frame 1", b"new"]
        await log.close()

    asyncio.run(scenario())


def test_appends_after_a_torn_tail_survive_the_next_crash_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        segment = await write_frames(tmp_path / "log", 2)
        overwrite(segment, frames_of(segment)[-1][1] - 1, b"?")
        log = open_log(tmp_path / "log")
        await append(log, P0, b"after")
        image = crash_image(tmp_path / "log")
        await log.close()
        found = open_log(image)
        assert await payloads(found, P0) == [b"frame 0", b"after"]
        await found.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_broken_frame_before_a_good_one_is_damage(tmp_path: Path, broken: int) -> None:
    async def scenario() -> None:
        segment = await write_frames(tmp_path / "log", 4)
        begin, end = frames_of(segment)[broken]
        before = segment.read_bytes()
        for position in range(begin, end, 7):
            overwrite(segment, position, bytes([before[position] ^ 0x40]))
            with pytest.raises(LogDamaged, match=rf"{FIRST_SEGMENT} at byte {begin}: .* offset {broken * 2} is broken"):
                open_log(tmp_path / "log")
            overwrite(segment, position, before[position : position + 1])
        overwrite(segment, begin, bytes(end - begin))
        with pytest.raises(LogDamaged):
            open_log(tmp_path / "log")
        overwrite(segment, begin, before[begin:end])
        assert segment.read_bytes() == before, "a refused log is left as it is"
        log = open_log(tmp_path / "log")
        assert len(await payloads(log, P0)) == 4
        await log.close()

    asyncio.run(scenario())


def test_a_frame_that_was_moved_or_left_out_is_damage(tmp_path: Path) -> None:
    async def scenario() -> None:
        segment = await write_frames(tmp_path / "log", 4)
        whole = segment.read_bytes()
        spans = frames_of(segment)
        (first, _), (second, third) = spans[0], spans[1]
        overwrite(segment, second, whole[third:])  # the second frame is gone, all others are good
        with pytest.raises(LogDamaged, match="offset 2 is broken"):
            open_log(tmp_path / "log")
        overwrite(segment, first, whole[second:third] + whole[first:second])
        with pytest.raises(LogDamaged):
            open_log(tmp_path / "log")

    asyncio.run(scenario())


def test_a_power_cut_without_fsync_takes_the_tail_and_is_no_damage(tmp_path: Path) -> None:
    """Frames that nobody synced reach the disk in any order: a good one after a bad one proves nothing."""

    async def scenario() -> None:
        log = open_log(tmp_path / "log", fsync="never")
        for n in range(3):
            await append(log, P0, b"%d" % n)
        assert log.synced_offset == 0
        assert await log.sync() == 3 == log.synced_offset
        for n in range(3, 7):
            await append(log, P0, b"%d" % n)
        assert log.synced_offset == 3
        image = crash_image(tmp_path / "log")
        await log.close()
        segment = image / FIRST_SEGMENT
        spans = frames_of(segment)
        overwrite(segment, spans[4][0], bytes(10))
        found = open_log(image)
        assert await payloads(found, P0) == [b"0", b"1", b"2", b"3"]
        await found.close()
        # But what the sync covered must be there.
        overwrite(tmp_path / "log" / FIRST_SEGMENT, spans[1][0], bytes(10))
        with pytest.raises(LogDamaged, match="offset 1 is broken"):
            open_log(tmp_path / "log")

    asyncio.run(scenario())


def test_what_a_killed_process_wrote_is_synced_before_anyone_applies_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = WatchedDisk()
        log = open_log(tmp_path / "log", disk=disk)
        disk.sync_error = EIO
        assert isinstance(await start_append(log, P0, b"written, not synced"), Unknown)
        image = crash_image(tmp_path / "log")
        await log.close()
        with pytest.raises(OSError, match="Input/output error"):
            open_log(image, disk=disk)
        disk.sync_error = None
        found = open_log(image, disk=disk)
        assert await payloads(found, P0) == [b"written, not synced"]
        await found.close()

    asyncio.run(scenario())


async def fill_segments(log: LocalLog, number: int) -> None:
    """Append to both partitions until the log has rolled this often."""
    before = log._chain.active.number
    while log._chain.active.number < before + number:
        await append(log, P0, bytes(700_000))
        await append(log, P1, b"small")


def test_a_log_goes_on_over_many_segments(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path / "log")
        await fill_segments(log, 3)
        expected = [await payloads(log, partition) for partition in (P0, P1)]
        image = crash_image(tmp_path / "log")
        await log.close()
        for directory in (image, tmp_path / "log"):
            found = open_log(directory)
            assert [await payloads(found, partition) for partition in (P0, P1)] == expected
            assert found.log_id == log.log_id
            await found.close()

    asyncio.run(scenario())


def test_a_torn_first_frame_of_a_segment_leaves_an_empty_segment(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path / "log")
        await fill_segments(log, 1)
        end = log.synced_offset
        await log.close()
        second = tmp_path / "log" / "segment-0000000001.log"
        _, first_end = frames_of(second)[0]
        overwrite(second, first_end - 3, bytes(second.stat().st_size - first_end + 3))
        log = open_log(tmp_path / "log")
        assert log.synced_offset == end - 1
        await fill_segments(log, 2)
        count_before = len(await payloads(log, P0))
        await log.close()
        log = open_log(tmp_path / "log")
        assert len(await payloads(log, P0)) == count_before
        await log.close()

    asyncio.run(scenario())


def test_damage_at_the_end_of_a_segment_is_proved_by_the_next_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path / "log")
        await fill_segments(log, 1)
        await log.close()
        first = tmp_path / "log" / FIRST_SEGMENT
        begin, end = frames_of(first)[-1]
        overwrite(first, begin, bytes(end - begin))
        with pytest.raises(LogDamaged, match=r"segment-0000000001\.log"):
            open_log(tmp_path / "log")

    asyncio.run(scenario())


def test_trimmed_segments_go_when_no_partition_needs_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path / "log")
        gone = await append(log, P2, b"only in the first segment")
        await fill_segments(log, 3)
        ends = {partition: await log.end(partition) for partition in (P0, P1, P2)}
        log.trim(P0, ends[P0])
        log.trim(P1, ends[P1])
        await log.close()
        assert (tmp_path / "log" / FIRST_SEGMENT).exists(), "one partition still needs it"

        log = open_log(tmp_path / "log")
        assert await payloads(log, P2) == [b"only in the first segment"]
        for partition, end in ends.items():
            log.trim(partition, end)
        await log.close()
        assert sorted(path.name for path in (tmp_path / "log").glob("*.log"))[0] != FIRST_SEGMENT

        log = open_log(tmp_path / "log")
        assert {partition: await log.end(partition) for partition in (P0, P1, P2)} == ends
        # Nothing is left of this partition, yet its reader's position and its next append's are exact.
        assert (await log.read(P2, ends[P2], 10)).records == []
        with pytest.raises(LogGap, match="partition 2 must be read from offset 0"):
            await log.read(P2, gone.offset, 10)
        outcome = await append(log, P2, b"new")
        assert outcome.position == ends[P2]
        assert await payloads(log, P2, ends[P2]) == [b"new"]
        with pytest.raises(LogGap):
            await log.read(P0, gone.offset, 10)
        await log.close()

    asyncio.run(scenario())


def test_a_segment_that_is_missing_or_foreign_or_unreadable_is_damage(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path / "log")
        await fill_segments(log, 2)
        await log.close()
        await write_frames(tmp_path / "other", 1)

        image = crash_image(tmp_path / "log")
        (image / "segment-0000000001.log").unlink()
        with pytest.raises(LogDamaged, match=r"before segment-0000000002\.log is missing"):
            open_log(image)

        image = crash_image(tmp_path / "log")
        shutil.copy(tmp_path / "other" / "segment-0000000001.log", image / "segment-0000000001.log")
        with pytest.raises(LogDamaged, match=r"segment-0000000001\.log belongs to another log"):
            open_log(image)

        image = crash_image(tmp_path / "log")
        overwrite(image / "segment-0000000001.log", 30, b"?")
        with pytest.raises(LogDamaged, match="header is broken"):
            open_log(image)

        image = crash_image(tmp_path / "log")
        (image / FIRST_SEGMENT).unlink()
        overwrite(image / "segment-0000000001.log", frames.SEGMENT_HEADER_SIZE, bytes(8))
        with pytest.raises(LogDamaged, match="first frame is broken"):
            open_log(image)

    asyncio.run(scenario())


def test_a_frame_of_a_newer_release_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        segment = await write_frames(tmp_path / "log", 2)
        overwrite(segment, frames_of(segment)[-1][0], (frames.FORMAT_VERSION + 1).to_bytes(4, "little"))
        before = segment.read_bytes()
        with pytest.raises(UpgradeRequired):
            open_log(tmp_path / "log")
        assert segment.read_bytes() == before

    asyncio.run(scenario())


def test_an_unfinished_segment_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        await write_frames(tmp_path / "log", 1)
        unfinished = tmp_path / "log" / "segment-0000000002.tmp"
        unfinished.write_bytes(b"half of it")
        log = open_log(tmp_path / "log")
        assert not unfinished.exists()
        await log.close()

    asyncio.run(scenario())


def test_a_record_broken_after_the_log_was_opened_is_not_handed_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path / "log")
        await append(log, P0, b"good")
        await append(log, P0, b"broken")
        segment = tmp_path / "log" / FIRST_SEGMENT
        overwrite(segment, frames_of(segment)[1][1] - 1, b"?")
        with pytest.raises(LogDamaged, match="the record at offset 1 is broken"):
            await payloads(log, P0)
        await log.close()

    asyncio.run(scenario())


def test_a_second_server_on_the_directory_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    async def scenario() -> None:
        log = open_log(tmp_path / "log")
        with pytest.raises(DirectoryLocked, match=r"process id \d+"):
            open_log(tmp_path / "log")
        await append(log, P0, b"undisturbed")
        await log.close()
        log = open_log(tmp_path / "log")
        assert await payloads(log, P0) == [b"undisturbed"]
        await log.close()

    asyncio.run(scenario())
