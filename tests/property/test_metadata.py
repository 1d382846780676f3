"""Any history of registrations: what holds afterwards, however often its records were appended."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_processor.cluster.metadata_machine import Applied, MetadataCommand, MetadataState, apply
from perdure_processor.model.ids import Millis
from perdure_processor.model.registration import ServiceKind
from perdure_processor.model.resolution import Defaults, Known, build_schema
from perdure_processor.model.schema import Schema
from support.metadata import Operator, service

NAMES = st.sampled_from("ABC")
ACTS = st.one_of(
    st.tuples(
        st.just("register"),
        st.sampled_from("xyz"),
        st.lists(st.tuples(NAMES, st.sampled_from(ServiceKind)), unique_by=lambda each: each[0], max_size=3),
        st.booleans(),
        st.booleans(),
    ),
    st.tuples(st.just("remove"), st.sampled_from("xyz")),
    st.tuples(st.just("patch"), NAMES, st.integers(0, 9)),
)


class Recording(Operator):
    """An operator whose commands are kept, as the log keeps them."""

    def __init__(self) -> None:
        self.log: list[MetadataCommand] = []
        super().__init__()

    def do(self, command: MetadataCommand) -> object:  # type: ignore[override]
        self.log.append(command)
        return super().do(command)

    def perform(self, act: tuple[object, ...]) -> object:
        match act:
            case ("register", str(name), list(services), bool(force), bool(breaking)):
                announced = [service(each, kind) for each, kind in services]
                return self.register(name, *announced, force=force, breaking=breaking)
            case ("remove", str(name)):
                return self.remove(f"dp_{name}")
            case ("patch", str(name), int(abort_timeout_ms)):
                return self.patch(name, abort_timeout_ms=abort_timeout_ms)
        raise AssertionError(act)


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTS, max_size=12))
def test_what_was_registered_last_is_the_latest_and_its_revision_the_highest(acts: list[tuple[object, ...]]) -> None:
    operator = Recording()
    for act in acts:
        before, version = operator.latest(), operator.state.version
        outcome = operator.perform(act)
        after = operator.latest()
        for name, (deployment_id, revision) in after.items():
            rows = operator.state.deployments.items()
            served = {key: row.revisions[name] for key, row in rows if name in row.revisions}
            assert served[deployment_id] == revision == max(served.values())
            assert len(served) == len(set(served.values()))
        if operator.state.version == version:
            assert after == before
            continue
        assert isinstance(outcome, Applied)
        match act:
            case ("register", str(name), list(services), _, _):
                for announced, _ in services:
                    assert after[announced][0] == f"dp_{name}"
                    assert after[announced][1] == before.get(announced, ("", 0))[1] + 1
            case ("remove", str(name)):
                assert all(deployment_id != f"dp_{name}" for deployment_id, _ in after.values())
            case _:
                assert after == before


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTS, max_size=12), st.data())
def test_doubled_appends_change_nothing(acts: list[tuple[object, ...]], data: st.DataObject) -> None:
    operator = Recording()
    for act in acts:
        operator.perform(act)
    doubled: list[MetadataCommand] = []
    for at, command in enumerate(operator.log):
        doubled.append(command)
        doubled.extend(operator.log[again] for again in data.draw(st.lists(st.integers(0, at), max_size=2)))
    once, twice = replay(operator.log), replay(doubled)
    assert (once.version, once.deployments, once.patches) == (twice.version, twice.deployments, twice.patches)


@settings(max_examples=100, deadline=None)
@given(st.lists(ACTS, max_size=12))
def test_a_schema_built_step_by_step_is_the_one_built_at_once(acts: list[tuple[object, ...]]) -> None:
    operator = Recording()
    known = Known({}, {}, Schema())
    for act in acts:
        operator.perform(act)
        state = operator.state
        schema = build_schema(state.version, state.deployments, state.patches, Defaults(), known)
        assert schema == operator.schema()
        known = Known(state.deployments, state.patches, schema)


def replay(log: list[MetadataCommand]) -> MetadataState:
    state = MetadataState()
    for command in log:
        state, _ = apply(state, command, Millis(0))
    return state
