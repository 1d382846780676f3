"""The Log port: what every log promises, and what every log may do.

The memory log runs a second time with all its freedoms on (gaps, empty and short reads, delays), so that these
scenarios fit a log of several machines as they are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest

from perdure_processor.log import Appended, Log, Outcome, ReadBatch, Refused, Unknown
from perdure_processor.log.local import SEGMENT_BYTES_MIN, Fsync, LocalLog
from perdure_processor.log.memory import LogFaults, MemoryLog, StoredRecords
from perdure_processor.model.errors import LogGap
from perdure_processor.model.ids import Offset, PartitionId
from perdure_processor.model.limits import RECORD_MAX
from support.logs import EIO, P0, P1, P2, SetClock, WatchedDisk, append, payloads, read_all, start_append

OpenLog: TypeAlias = Callable[[], Log]

LOCAL: dict[str, Fsync] = {"local": "always", "local-interval": ("interval", 5), "local-never": "never"}
FREEDOMS = LogFaults(gap=0.5, empty_read=0.3, short_read=0.5, delay_ms_max=2)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=["memory", "memory-free", *LOCAL])
def open_log(request: pytest.FixtureRequest, tmp_path: Path, clock: SetClock) -> OpenLog:
    """Opens the log under test; again after `close`, it finds what was there. Call it on the loop."""
    kind: str = request.param
    if kind in LOCAL:
        fsync = LOCAL[kind]
        return lambda: LocalLog.open(tmp_path, clock=clock, fsync=fsync, segment_bytes=SEGMENT_BYTES_MIN)
    stored = StoredRecords()
    if kind == "memory":
        return lambda: MemoryLog(stored, clock=clock)
    chooser = random.Random(7)
    return lambda: MemoryLog(stored, clock=clock, faults=FREEDOMS, chooser=chooser)


def test_what_is_appended_is_read_back_in_order(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        outcomes = [await append(log, P0, b"record %d" % n) for n in range(20)]
        records = await read_all(log, P0)
        assert [record.payload for record in records] == [b"record %d" % n for n in range(20)]
        assert [(record.offset, record.timestamp_ms) for record in records] == [
            (outcome.offset, outcome.timestamp_ms) for outcome in outcomes
        ]
        assert all(earlier.offset < later.offset for earlier, later in pairwise(records))
        await log.close()

    asyncio.run(scenario())


def test_partitions_do_not_see_each_other(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        for n in range(10):
            await append(log, (P0, P1)[n % 2], b"%d" % n)
        assert await payloads(log, P0) == [b"0", b"2", b"4", b"6", b"8"]
        assert await payloads(log, P1) == [b"1", b"3", b"5", b"7", b"9"]
        assert await payloads(log, P2) == []
        assert await log.end(P2) == 0
        await log.close()

    asyncio.run(scenario())


def test_an_outcome_comes_later_once_and_in_append_order(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        told: list[int] = []
        all_told = asyncio.get_running_loop().create_future()

        def tell(number: int, outcome: Outcome) -> None:
            assert isinstance(outcome, Appended)
            told.append(number)
            if len(told) == 50:
                all_told.set_result(None)

        for n in range(50):
            log.append(P0, b"%d" % n, lambda outcome, n=n: tell(n, outcome))  # type: ignore[misc]
            assert told == [], "done was called from within append"
        await all_told
        await log.close()
        assert told == list(range(50))

    asyncio.run(scenario())


def test_a_callback_may_append(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        finished = asyncio.get_running_loop().create_future()

        def again(outcome: Outcome) -> None:
            log.append(P0, b"second", finished.set_result)

        log.append(P0, b"first", again)
        assert isinstance(await finished, Appended)
        assert await payloads(log, P0) == [b"first", b"second"]
        await log.close()

    asyncio.run(scenario())


def test_a_callback_that_raises_costs_nobody_else_the_outcome(open_log: OpenLog) -> None:
    async def scenario() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        log = open_log()
        bug = ValueError("a bug in a callback")

        def raises(_: Outcome) -> None:
            raise bug

        log.append(P0, b"first", raises)
        await append(log, P0, b"second")
        assert reported == [bug]
        assert await payloads(log, P0) == [b"first", b"second"]
        await log.close()

    asyncio.run(scenario())


def test_a_reader_standing_at_an_appends_position_meets_that_record_next(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        outcomes = {}
        for n in range(30):
            outcomes[n] = await append(log, (P0, P1, P2)[n * 7 % 3], b"%d" % n)
        reached = {P0: 0, P1: 0, P2: 0}
        for n, outcome in outcomes.items():
            partition = (P0, P1, P2)[n * 7 % 3]
            assert outcome.position == reached[partition], "the position after the record before this one"
            for position in (outcome.position, outcome.offset):
                assert (await read_all(log, partition, position))[0].payload == b"%d" % n
            reached[partition] = outcome.offset + 1
        await log.close()

    asyncio.run(scenario())


def test_at_the_end_a_read_is_empty_and_stays_there(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        await append(log, P0, b"first")
        await append(log, P1, b"elsewhere")
        end = await log.end(P0)
        batch = await log.read(P0, end, 10)
        assert batch == ReadBatch([], end)
        outcome = await append(log, P0, b"second")
        assert outcome.position <= end <= outcome.offset, "a reader at the end may apply the next record from memory"
        assert await payloads(log, P0, end) == [b"second"]
        await log.close()

    asyncio.run(scenario())


def test_a_read_gives_at_most_its_limit_and_says_where_to_go_on(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        for n in range(25):
            await append(log, P0, b"%d" % n)
            await append(log, P1, b"other")
        assert [record.payload for record in await read_all(log, P0, limit=4)] == [b"%d" % n for n in range(25)]
        await log.close()

    asyncio.run(scenario())


def test_time_never_goes_back(open_log: OpenLog, clock: SetClock) -> None:
    async def scenario() -> None:
        log = open_log()
        stamps = []
        for clock.now in (5_000, 4_000, 6_000):
            stamps.append((await append(log, P0, b"x")).timestamp_ms)
        assert stamps == [5_000, 5_000, 6_000]
        await log.close()
        log = open_log()
        assert (await append(log, P0, b"x")).timestamp_ms == 6_000, "also across a restart"
        await log.close()

    asyncio.run(scenario())


def test_trimmed_records_may_go_and_the_others_stay(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        outcomes = [await append(log, P0, b"%d" % n) for n in range(10)]
        await append(log, P1, b"not trimmed")
        log.trim(P0, outcomes[6].offset)
        assert await payloads(log, P0, outcomes[6].offset) == [b"6", b"7", b"8", b"9"]
        assert await payloads(log, P1) == [b"not trimmed"]
        try:
            rest = await payloads(log, P0)
        except LogGap:
            pass  # Gone for good: a reader that needs them is told.
        else:
            assert rest == [b"%d" % n for n in range(10)], "a trim is a hint, but never makes holes"
        await log.close()

    asyncio.run(scenario())


def test_a_partition_trimmed_to_its_end_goes_on_where_it_was(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        await append(log, P0, b"old")
        end = await log.end(P0)
        log.trim(P0, end)
        assert await log.read(P0, end, 10) == ReadBatch([], end)
        outcome = await append(log, P0, b"new")
        assert outcome.position == end
        assert await payloads(log, P0, end) == [b"new"]
        await log.close()

    asyncio.run(scenario())


def test_closing_writes_what_was_appended_and_refuses_the_rest(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        before = [start_append(log, P0, b"%d" % n) for n in range(5)]
        closing = asyncio.ensure_future(log.close())
        await asyncio.wait_for(closing, 5)
        assert all(isinstance(future.result(), Appended) for future in before)
        assert isinstance(await start_append(log, P0, b"late"), Refused)
        await log.close()
        log = open_log()
        assert await payloads(log, P0) == [b"0", b"1", b"2", b"3", b"4"]
        await log.close()

    asyncio.run(scenario())


def test_the_next_process_finds_the_same_log(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        for n in range(20):
            await append(log, (P0, P1)[n % 2], b"%d" % n)
        ends = [await log.end(partition) for partition in (P0, P1, P2)]
        records = [await read_all(log, partition) for partition in (P0, P1, P2)]
        await log.close()
        log = open_log()
        assert [await log.end(partition) for partition in (P0, P1, P2)] == ends
        assert [await read_all(log, partition) for partition in (P0, P1, P2)] == records
        outcome = await append(log, P0, b"after the restart")
        assert outcome.position == ends[0]
        assert await payloads(log, P0, ends[0]) == [b"after the restart"]
        await log.close()

    asyncio.run(scenario())


def test_the_largest_record_fits_and_a_larger_one_is_our_mistake(open_log: OpenLog) -> None:
    async def scenario() -> None:
        log = open_log()
        largest = bytes(range(256)) * (RECORD_MAX // 256)
        await append(log, P0, largest)
        await append(log, P0, b"")
        with pytest.raises(AssertionError):
            log.append(P0, largest + b"x", lambda outcome: None)
        assert await payloads(log, P0) == [largest, b""]
        await log.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_refused_record_is_never_in_the_log_and_an_unknown_one_at_most_once(
    kind: str, seed: int, tmp_path: Path
) -> None:
    """Whatever fails underneath: Appended is there, Refused is not, Unknown is there once or not at all."""

    async def scenario() -> None:
        chooser = random.Random(seed)
        stored = StoredRecords()
        watched = WatchedDisk()
        outcomes: dict[bytes, tuple[PartitionId, Outcome]] = {}

        def open_it() -> Log:
            if kind == "local":
                watched.sync_error = None
                return LocalLog.open(tmp_path, clock=SetClock(), segment_bytes=SEGMENT_BYTES_MIN, disk=watched.disk())
            faults = LogFaults(gap=0.2, refused=0.2, unknown=0.2, delay_ms_max=1)
            return MemoryLog(stored, clock=SetClock(), faults=faults, chooser=chooser)

        number = 0
        for _ in range(3):
            log = open_it()
            for turn in range(8):
                if turn == 5 and kind == "local":
                    watched.sync_error = EIO
                started = {}
                for _ in range(chooser.randint(1, 5)):
                    payload = b"%d" % number
                    number += 1
                    partition = PartitionId(chooser.randint(0, 2))
                    started[payload] = partition, start_append(log, partition, payload)
                for payload, (partition, future) in started.items():
                    outcomes[payload] = partition, await future
            await log.close()

        log = open_it()
        if isinstance(log, MemoryLog):
            log.faults = LogFaults()
        found = [(record.payload, record.offset, p) for p in (P0, P1, P2) for record in await read_all(log, p)]
        assert len({payload for payload, _, _ in found}) == len(found), "a record is in the log twice"
        kinds = set()
        for payload, (partition, outcome) in outcomes.items():
            kinds.add(type(outcome))
            places = [(offset, p) for found_payload, offset, p in found if found_payload == payload]
            match outcome:
                case Appended():
                    assert places == [(outcome.offset, partition)]
                case Refused():
                    assert places == []
                case Unknown():
                    assert [p for _, p in places] in ([], [partition])
        assert kinds == {Appended, Refused, Unknown}
        await log.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_crash_of_the_memory_log_keeps_a_prefix_of_what_was_pending(kept: int) -> None:
    async def scenario() -> None:
        stored = StoredRecords()
        log = MemoryLog(stored)
        await append(log, P0, b"acknowledged")
        told: list[Outcome] = []
        for n in range(3):
            log.append(P0, b"%d" % n, told.append)
        log.crash(kept)
        await asyncio.sleep(0)
        found = MemoryLog(stored)
        assert await payloads(found, P0) == [b"acknowledged", b"0", b"1", b"2"][: 1 + kept]
        assert told == [], "nobody is left to be told"
        assert (await append(found, P0, b"next")).offset == Offset(1 + kept)

    asyncio.run(scenario())
