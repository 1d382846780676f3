"""Following and proposing: one node, several nodes, crashes, and a log that uses all its freedoms."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

import pytest

from perdure_processor.cluster import metadata as module
from perdure_processor.cluster.metadata import LayoutRefused, Metadata, MetadataUnavailable
from perdure_processor.cluster.metadata_machine import (
    Applied,
    MetadataOutcome,
    PatchService,
    RegisterDeployment,
    Rejected,
    SkipRecord,
)
from perdure_processor.log.memory import LogFaults, MemoryLog, StoredRecords
from perdure_processor.model.errors import AheadOfLog, LogGap
from perdure_processor.model.ids import METADATA_PARTITION, DeploymentId, Millis, NodeId, Offset, PartitionId
from perdure_processor.model.limits import RECORD_MAX
from perdure_processor.model.registration import RegisteredService, ServicePatch
from perdure_processor.model.resolution import Defaults
from perdure_processor.model.schema import Schema
from perdure_processor.storage.memory import MemoryKeyValue
from support.metadata import service

# Each node made here is another process start.
GENERATIONS = itertools.count(1 << 63)


class Worst:
    """Chance at its worst: whatever can happen does, and an append whose outcome is unknown was lost."""

    def random(self) -> float:
        return 0.0

    def randint(self, a: int, b: int) -> int:
        return a


async def at_once(work: Callable[[], None]) -> None:
    work()


def node(
    log: MemoryLog, store: MemoryKeyValue, name: str = "n1", *, poll_s: float | None = None, trim: bool = True
) -> Metadata:
    return Metadata(
        log, store, NodeId(name, next(GENERATIONS)), Defaults(), run_blocking=at_once, poll_s=poll_s, trim=trim
    )


async def register(metadata: Metadata, name: str, *services: RegisteredService) -> MetadataOutcome:
    """Register http://`name`, by force, so that each time counts as a revision."""
    return await metadata.change(
        lambda state, request: RegisterDeployment(
            request=request,
            expected_version=state.version,
            id=DeploymentId(f"dp_{name}"),
            uri=f"http://{name}",
            http1=False,
            bidirectional=True,
            additional_headers={},
            metadata={},
            min_protocol_version=5,
            max_protocol_version=7,
            sdk_version=None,
            services=list(services),
            force=True,
            permit_type_change=False,
        )
    )


def stored_records(stored: StoredRecords) -> int:
    return len(stored.partition(METADATA_PARTITION).records)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def test_the_first_start_lays_the_cluster_out_and_later_ones_find_it() -> None:
    async def scenario() -> None:
        stored, store = StoredRecords(), MemoryKeyValue()
        first = node(MemoryLog(stored), store)
        assert (await first.start("one", 8)).cluster_id == "one"
        await first.stop()

        second = node(MemoryLog(stored), store)
        layout = await second.start("two", 8)
        assert (layout.cluster_id, layout.partitions) == ("one", 8)
        await second.stop()

        third = node(MemoryLog(stored), store)
        with pytest.raises(LayoutRefused, match="laid out with 8 partitions"):
            await third.start("three", 4)
        assert stored_records(stored) == 0  # one record was enough, and it is trimmed

    run(scenario)


def test_a_change_holds_when_it_is_answered() -> None:
    async def scenario() -> None:
        metadata = node(MemoryLog(), MemoryKeyValue())
        heard: list[Schema] = []
        metadata.on_change(heard.append)
        await metadata.start("c", 8)
        outcome = await register(metadata, "a", service("A"))
        assert outcome == Applied(2, DeploymentId("dp_a"), created=True)
        assert metadata.schema.version == 2
        assert metadata.schema.services["A"].deployment_id == "dp_a"
        assert heard[-1] is metadata.schema
        await metadata.stop()

    run(scenario)


def test_what_was_answered_is_there_after_any_crash() -> None:
    """The store keeps some prefix of its unflushed batches; the log has the rest."""

    async def scenario(batches_kept: int) -> None:
        stored, store = StoredRecords(), MemoryKeyValue(crashable=True)
        log = MemoryLog(stored)
        before = node(log, store)
        await before.start("c", 8)
        await register(before, "a", service("A"))
        await before.change(lambda s, r: PatchService(r, s.version, "A", ServicePatch(public=False)))
        await register(before, "b", service("A"), service("B"))
        await before.propose(SkipRecord(before.next_request(), PartitionId(2), Offset(40)))
        assert store.unflushed == 5
        log.crash()
        after = node(MemoryLog(stored), store.crash(batches_kept))
        await after.start("other", 8)
        assert after.schema == before.schema
        assert after.state == before.state
        assert after.skipped(PartitionId(2)) == {40}
        assert after.skipped(PartitionId(3)) == frozenset()
        await after.stop()

    for batches_kept in range(6):
        run(lambda kept=batches_kept: scenario(kept))  # type: ignore[misc]


def test_the_log_is_trimmed_only_behind_a_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METADATA_RECORDS_PER_FLUSH", 3)

    async def scenario() -> None:
        stored, store = StoredRecords(), MemoryKeyValue(crashable=True)
        log = MemoryLog(stored)
        before = node(log, store)
        await before.start("c", 8)
        await register(before, "a", service("A"))
        assert (stored_records(stored), store.unflushed) == (2, 2)
        for _ in range(3):
            await register(before, "a", service("A"))
        assert stored_records(stored) < 5
        log.crash()
        after = node(MemoryLog(stored), store.crash(0))
        await after.start("c", 8)
        assert after.schema.services["A"].revision == 4
        await after.stop()

    run(scenario)


def test_a_change_is_flushed_after_a_while_although_nothing_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_MS", 1)

    async def scenario() -> None:
        stored = StoredRecords()
        metadata = node(MemoryLog(stored), MemoryKeyValue())
        await metadata.start("c", 8)
        await register(metadata, "a", service("A"))
        while stored_records(stored):  # bounded by run()
            await asyncio.sleep(0.001)
        await metadata.stop()

    run(scenario)


def test_two_nodes_change_the_same_metadata_and_agree() -> None:
    async def scenario() -> None:
        stored = StoredRecords()
        one = node(MemoryLog(stored), MemoryKeyValue(), "n1", poll_s=0.005, trim=False)
        two = node(MemoryLog(stored), MemoryKeyValue(), "n2", poll_s=0.005, trim=False)
        await asyncio.gather(one.start("c1", 8), two.start("c2", 8))
        await asyncio.gather(*(register(each, "a", service("A")) for each in (one, two) * 5))
        while one.schema.version != two.schema.version:
            await asyncio.sleep(0.001)
        assert one.schema == two.schema
        assert one.layout == two.layout
        assert one.schema.services["A"].revision == 10
        await one.stop()
        await two.stop()

    run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_each_change_is_applied_once_whatever_becomes_of_its_appends(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "METADATA_RETRY_PAUSE_S", 0.001)

    async def scenario() -> None:
        faults = LogFaults(gap=0.3, empty_read=0.3, short_read=0.3, unknown=0.5, delay_ms_max=2)
        stored, chooser = StoredRecords(), random.Random(seed)
        metadata = node(MemoryLog(stored, faults=faults, chooser=chooser), MemoryKeyValue(), poll_s=0.01)
        await metadata.start("c", 8)
        for revision in range(1, 16):
            await register(metadata, "a", service("A"))
            assert metadata.schema.services["A"].revision == revision
        await metadata.stop()

    run(scenario)


def test_a_refused_append_is_told_at_once_and_nothing_holds() -> None:
    async def scenario() -> None:
        log = MemoryLog()
        metadata = node(log, MemoryKeyValue())
        await metadata.start("c", 8)
        log.poison("disk full")
        with pytest.raises(MetadataUnavailable, match="disk full") as caught:
            await register(metadata, "a", service("A"))
        assert not caught.value.may_have_applied
        assert metadata.schema.services == {}
        await metadata.stop()

    run(scenario)


def test_after_an_unknown_append_the_proposer_is_told_that_it_may_hold() -> None:
    async def scenario() -> None:
        log = MemoryLog(chooser=Worst())
        metadata = node(log, MemoryKeyValue())
        await metadata.start("c", 8)
        log.faults = LogFaults(unknown=1.0, unknown_is_final=True)
        with pytest.raises(MetadataUnavailable, match="unknown") as caught:
            await register(metadata, "a", service("A"))
        assert caught.value.may_have_applied
        with pytest.raises(MetadataUnavailable, match="unknown") as caught:
            await register(metadata, "a", service("A"))
        assert not caught.value.may_have_applied
        await metadata.stop()

    run(scenario)


def test_a_log_that_does_not_answer_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METADATA_PROPOSE_TIMEOUT_S", 0.01)

    async def scenario() -> None:
        log = MemoryLog()
        metadata = node(log, MemoryKeyValue())
        await metadata.start("c", 8)
        log.crash()  # appends of a dead connection are never answered
        with pytest.raises(MetadataUnavailable, match="did not answer") as caught:
            await register(metadata, "a", service("A"))
        assert caught.value.may_have_applied
        await metadata.stop()

    run(scenario)


def test_a_log_that_lost_what_was_applied_is_refused() -> None:
    async def scenario() -> None:
        store = MemoryKeyValue()
        metadata = node(MemoryLog(), store)
        await metadata.start("c", 8)
        await metadata.stop()
        with pytest.raises(AheadOfLog, match="the log ends at 0"):
            await node(MemoryLog(), store).start("c", 8)

    run(scenario)


def test_a_store_that_misses_trimmed_records_is_refused() -> None:
    async def scenario() -> None:
        stored = StoredRecords()
        metadata = node(MemoryLog(stored), MemoryKeyValue())
        await metadata.start("c", 8)
        await metadata.stop()
        with pytest.raises(LogGap):
            await node(MemoryLog(stored), MemoryKeyValue()).start("c", 8)

    run(scenario)


def test_a_record_that_cannot_be_read_stops_the_metadata_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        log = MemoryLog()
        metadata = node(log, MemoryKeyValue())
        await metadata.start("c", 8)
        await register(metadata, "a", service("A"))
        log.stored.add(METADATA_PARTITION, b"\x01garbage", Millis(0), gap=0)
        with pytest.raises(MetadataUnavailable, match="no longer follows") as caught:
            await register(metadata, "a", service("A"))
        assert caught.value.may_have_applied
        assert metadata.failure is not None
        assert metadata.schema.services["A"].revision == 1
        with pytest.raises(MetadataUnavailable, match="no longer follows"):
            await register(metadata, "a", service("A"))
        await metadata.stop()
        assert "metadata stops at position" in caplog.text

    run(scenario)


def test_a_change_that_is_too_large_for_a_record_is_refused() -> None:
    async def scenario() -> None:
        metadata = node(MemoryLog(), MemoryKeyValue())
        await metadata.start("c", 8)
        outcome = await register(metadata, "a", service("A" * RECORD_MAX))
        assert isinstance(outcome, Rejected)
        assert outcome.status == 400
        await metadata.stop()

    run(scenario)


def test_a_preview_shows_what_would_hold_and_changes_nothing() -> None:
    async def scenario() -> None:
        metadata = node(MemoryLog(), MemoryKeyValue())
        await metadata.start("c", 8)
        await register(metadata, "a", service("A"))
        held = metadata.schema
        patch = PatchService(metadata.next_request(), held.version, "A", ServicePatch(public=False))
        outcome, schema = metadata.preview(patch, Millis(5))
        assert outcome == Applied(held.version + 1)
        assert not schema.services["A"].public
        assert metadata.schema is held
        await metadata.stop()

    run(scenario)


def test_a_stopped_node_proposes_nothing() -> None:
    async def scenario() -> None:
        metadata = node(MemoryLog(), MemoryKeyValue())
        with pytest.raises(MetadataUnavailable, match="not followed"):
            await register(metadata, "a", service("A"))
        await metadata.start("c", 8)
        await metadata.stop()
        with pytest.raises(MetadataUnavailable, match="not followed"):
            await register(metadata, "a", service("A"))

    run(scenario)
