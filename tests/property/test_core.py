"""The core at random: nothing trips an assertion, nothing is left, and replicas agree byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_processor.model.actions import Acted, Answered, Missing, RespondToIngress, Taken
from perdure_processor.model.commands import (
    AnnounceLeader,
    Ask,
    AttemptEffects,
    Command,
    Expire,
    KillCall,
    Operate,
    OperatorCommand,
    Repin,
    RestartAsNew,
    Resume,
    TimersFired,
    TruncateOutbox,
    Verb,
)
from perdure_processor.model.effects import Pause, RetryAt
from perdure_processor.model.ids import (
    DeploymentId,
    Incarnation,
    InvocationId,
    LeaderEpoch,
    Millis,
    NodeId,
    PartitionId,
)
from perdure_processor.model.results import CallerSink, SinkKind
from perdure_processor.storage import keys
from support import builders as b
from support.cluster import Cluster, digest_of
from support.env import START_MS, Env

TESTS = Path(__file__).resolve().parent.parent


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_happens_in_whatever_order_replicas_agree_and_nothing_is_left(seed: int) -> None:
    cluster = Cluster(seed)
    cluster.run(150)
    for env in cluster.envs:
        env.check_replay()
    cluster.drain()
    for env in cluster.envs:
        assert env.leftovers().keys() <= {keys.STATE}, "only objects' state outlives everything"


def test_tables_do_not_depend_on_the_hashes_of_strings() -> None:
    expected = digest_of(4711)
    for hash_seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-m", "support.cluster", "4711"],
            cwd=TESTS,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == expected


# -- every state and every command ----------------------------------------------------------------
TARGET = b.thing()
ID = b.invocation_id(TARGET, "key")
HOLDER = b.invocation_id(TARGET, 99)


def _nothing(_env: Env) -> None: ...


def _scheduled(env: Env) -> None:
    env.apply(b.invoke(TARGET, "key", one_way=True, delay_ms=1_000, asked=b.request(1)))


def _inboxed(env: Env) -> None:
    env.apply(b.invoke(TARGET, 99), b.invoke(TARGET, "key", asked=b.request(1)))


def _invoked(env: Env) -> None:
    env.apply(b.invoke(TARGET, "key", asked=b.request(1), completion_retention_ms=0))


def _backing_off(env: Env) -> None:
    _invoked(env)
    env.effects(ID, b.pinned(), b.attempt_failed(RetryAt(Millis(START_MS + 500), counted=True)))


def _pausing(env: Env) -> None:
    _invoked(env)
    env.effects(ID, b.pinned(), b.call(ID, b.thing("bob"), 1))
    env.apply(Operate(ID, Verb.PAUSE, b.request(50), Millis(START_MS)))


def _suspended(env: Env) -> None:
    _invoked(env)
    env.effects(ID, b.pinned(), b.sleep(1, START_MS + 100), b.run(3), b.suspended(1))


def _paused(env: Env) -> None:
    _invoked(env)
    env.effects(ID, b.pinned(), b.sleep(1, START_MS + 100), b.attempt_failed(Pause()))


def _completed(env: Env) -> None:
    _invoked(env)
    env.effects(ID, b.pinned(), *b.ended())


def _proven(env: Env) -> None:
    _completed(env)
    env.expire(until_ms=START_MS)


STATES = [_nothing, _scheduled, _inboxed, _invoked, _backing_off, _pausing, _suspended, _paused, _completed, _proven]
NEW_ID = InvocationId(ID[:8] + bytes(16))
REPIN = Repin(DeploymentId("dp_2"), 5, 7)


def operators(first_request: int = 100) -> list[OperatorCommand]:
    """Everything that an operator may ask for."""
    numbers = iter(range(first_request, first_request + 20))
    return [
        *(Operate(ID, verb, b.request(next(numbers)), Millis(START_MS)) for verb in Verb),
        *(Resume(ID, repin, b.request(next(numbers)), Millis(START_MS)) for repin in (None, REPIN)),
        *(
            RestartAsNew(ID, NEW_ID, index, index > 0, None, b.request(next(numbers)), Millis(START_MS))
            for index in (0, 1, 99)
        ),
    ]


def commands_for(env: Env) -> list[Command]:
    """One of every kind, addressed to the invocation, some rightly and some wrongly."""
    row = env.row(ID)
    incarnation = getattr(row, "incarnation", Incarnation(0))
    attempt, commands = getattr(row, "attempt", 1), getattr(row, "commands", 1)
    sink = CallerSink(ID, incarnation, 1)  # type: ignore[arg-type]
    timers = [keys.timer(START_MS + 100, ID, kind, 1) for kind in range(6)]
    return [
        b.invoke(TARGET, "key", asked=b.request(1)),
        b.invoke(TARGET, "key", asked=b.request(2)),
        b.invoke(TARGET, "key", asked=b.request(3), one_way=True, delay_ms=50),
        b.invoke(TARGET, "key", caller=CallerSink(HOLDER, Incarnation(0), 1)),  # type: ignore[arg-type]
        b.attach(ID, b.request(4)),
        b.get_output(ID, b.request(5)),
        b.signal(ID, 1),
        b.signal(ID, 17, b"", b.request(6)),
        b.signal(ID, "name", b"", b.request(7)),
        *operators(),
        KillCall(ID, sink),
        KillCall(ID, CallerSink(HOLDER, Incarnation(0), 1)),  # type: ignore[arg-type]
        Ask(ID, CallerSink(HOLDER, Incarnation(0), 3, SinkKind.ATTACH)),  # type: ignore[arg-type]
        Ask(ID, CallerSink(HOLDER, Incarnation(0), 4, SinkKind.OUTPUT)),  # type: ignore[arg-type]
        b.respond(sink, b.ok()),
        b.respond(CallerSink(ID, Incarnation(12345), 1), b.ok()),  # type: ignore[arg-type]
        AttemptEffects(ID, incarnation, attempt, commands, [b.run(7), b.run_done(7), *b.ended()]),
        AttemptEffects(ID, incarnation, attempt + 1, commands, b.ended()),
        AttemptEffects(ID, Incarnation(12345), attempt, commands, b.ended()),
        TimersFired([*timers, *(key for key, _ in env.store.scan(keys.TIMER, keys.end_of(keys.TIMER)))]),
        Expire(Millis(START_MS), 512),
        Expire(Millis(START_MS + 10 * b.DAY_MS), 512),
        TruncateOutbox(PartitionId(1), 5),
        AnnounceLeader(NodeId("n", 1), LeaderEpoch(5), 1),
    ]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_every_command_is_handled_or_refused_in_every_state(state) -> None:  # type: ignore[no-untyped-def]
    count = len(commands_for(Env()))
    for first in range(count):
        for second in range(count):
            env = Env()
            state(env)
            for number in (first, second):
                env.apply(commands_for(env)[number])
        env.check_replay()


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_what_a_client_asks_is_answered_now_or_at_the_end(state) -> None:  # type: ignore[no-untyped-def]
    env = Env()
    state(env)
    asked = [b.invoke(TARGET, "key", asked=b.request(2)), b.attach(ID, b.request(4)), b.get_output(ID, b.request(5))]
    answered = {action.request for action in env.apply(*asked) if hasattr(action, "request")}
    waiting = set(getattr(env.row(ID), "sinks", []))
    assert {b.request(2), b.request(4), b.request(5)} <= answered | waiting
    assert answered.isdisjoint(waiting)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_a_request_made_twice_is_answered_alike_and_changes_nothing(state) -> None:  # type: ignore[no-untyped-def]
    for again in (
        b.invoke(TARGET, "key", asked=b.request(2)),
        b.invoke(TARGET, "key", asked=b.request(3), one_way=True),
    ):
        env = Env()
        state(env)
        first = [a.answer for a in env.apply(again) if hasattr(a, "answer")]
        before = {k: v for k, v in env.dump().items() if k[:2] != keys.METADATA}
        second = [a.answer for a in env.apply(again) if hasattr(a, "answer")]
        assert {k: v for k, v in env.dump().items() if k[:2] != keys.METADATA} == before
        strip = lambda answers: [(type(a), getattr(a, "id", None)) for a in answers]  # noqa: E731
        assert strip(first) == strip(second)
        assert all(not isinstance(a, Taken) or a in first for a in second)
        assert all(isinstance(a, Answered | Taken) for a in first)


# What each verb says in each state. "-" stands for an invocation that nobody knows.
_SAID = """
            cancel    kill      pause       purge         purge-journal resume      resume-on   restart
nothing     -         -         -           -             -             -           -           -
scheduled   done      done      not-running not-completed not-completed not-started not-started not-started
inboxed     done      done      not-running not-completed not-completed not-started not-started not-started
invoked     accepted  done      accepted    not-completed not-completed done        not-pinned  not-completed
backing_off accepted  done      accepted    not-completed not-completed done        not-pinned  not-completed
pausing     accepted  done      accepted    not-completed not-completed done        not-pinned  not-completed
suspended   accepted  done      not-running not-completed not-completed done        done        not-completed
paused      accepted  done      done        not-completed not-completed done        done        not-completed
completed   completed completed completed   done          done          completed   completed   no-input
proven      -         -         -           -             -             -           -           -
"""


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_every_verb_says_what_it_did_or_why_not(state) -> None:  # type: ignore[no-untyped-def]
    name = state.__name__.removeprefix("_")
    said = []
    for command in operators()[:-2]:
        env = Env()
        state(env)
        answer = _answer_to(env, command)
        said.append("-" if isinstance(answer, Missing) else answer.deed.name.lower().replace("_", "-"))
    expected = next(line.split()[1:] for line in _SAID.splitlines() if line.split()[:1] == [name])
    assert said == expected


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_a_verb_made_twice_is_answered_alike_and_done_once(state) -> None:  # type: ignore[no-untyped-def]
    """Whatever else an operator asked for in between (correctness 3)."""
    count = len(operators())
    for first in range(count):
        for between in range(count):
            env = Env()
            state(env)
            command = operators()[first]
            answer = _answer_to(env, command)
            env.apply(operators(200)[between])
            before = {k: v for k, v in env.dump().items() if k[:2] != keys.METADATA}
            again = _answer_to(env, command)
            assert {k: v for k, v in env.dump().items() if k[:2] != keys.METADATA} == before, command
            assert again == answer, command


def _answer_to(env: Env, command: OperatorCommand) -> Acted | Missing:
    answers = [
        action.answer
        for action in env.apply(command)
        if isinstance(action, RespondToIngress) and action.request == command.request
    ]
    assert len(answers) == 1, f"{command} was answered {len(answers)} times"
    assert isinstance(answers[0], Acted | Missing)
    return answers[0]
