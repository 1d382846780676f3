"""State patches: whole, once, and in the order of the log with the calls of their key."""

from __future__ import annotations

import base64
import hashlib

import pytest

from perdure_processor.model.actions import Acted, Action, Crowded, Deed, Expired, ReportRefusedPatch, RespondToIngress
from perdure_processor.model.commands import ReplaceState
from perdure_processor.model.ids import InvocationId, Millis
from perdure_processor.model.limits import REQUEST_HORIZON_MS, ROWS_MAX, STATE_PATCHES_WAITING_MAX
from perdure_processor.state_machine import state_patch
from perdure_processor.storage import keys
from support.builders import ended, flow, invocation_id, invoke, pinned, request, set_state, thing
from support.env import START_MS, Env, started

A, B, C = (invocation_id(thing(), number) for number in (1, 2, 3))
Pairs = list[tuple[bytes, bytes]]


def patch(number: int, state: Pairs, version: str | None = None, *, service: str = "Counter") -> ReplaceState:
    """A patch of the key that A, B and C call; one number is one request."""
    patch_id = InvocationId(A[:8] + number.to_bytes(16, "big"))
    return ReplaceState(patch_id, service, "alice", version, state, request(number), Millis(START_MS))


def deeds(actions: list[Action]) -> list[Deed]:
    answers = [action.answer for action in actions if type(action) is RespondToIngress]
    return [answer.deed for answer in answers if type(answer) is Acted]


def state(env: Env) -> Pairs:
    low = keys.STATE + keys.object_suffix(A, "Counter", "alice")
    return [(key[len(low) :], value[9:]) for key, value in env.store.scan(low, keys.end_of(low))]


def test_a_free_key_is_given_its_new_state_at_once(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    env.effects(A, pinned(), set_state(b"a", b"1"), set_state(b"b", b"2"), *ended())
    everything = bytes(range(256))
    assert deeds(env.apply(patch(1, [(b"", everything), ("é/.😀".encode(), b"")]))) == [Deed.DONE]
    assert state(env) == [(b"", everything), ("é/.😀".encode(), b"")]
    assert deeds(env.apply(patch(2, []))) == [Deed.DONE]
    assert state(env) == []


def test_the_version_is_the_one_of_the_original(env: Env) -> None:
    pairs = [(b"a", b"1"), (b"b", b"22")]
    digest = hashlib.sha256(b"\0" * 8 + b"\x01a\x021\x03" + b"\0" * 7 + b"\x01" + b"\x01b\x0222\x03").digest()
    version = state_patch.version_of(pairs)
    assert version == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    env.apply(patch(1, pairs))
    assert deeds(env.apply(patch(2, [(b"c", b"3")], state_patch.version_of([])))) == [Deed.WRONG_STATE]
    assert state(env) == pairs
    assert deeds(env.apply(patch(3, [(b"c", b"3")], version))) == [Deed.DONE]
    assert state(env) == [(b"c", b"3")]


def test_a_running_call_does_not_see_it_and_the_next_does(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    env.effects(A, pinned(), set_state(b"a", b"1"))
    assert deeds(env.apply(patch(1, [(b"a", b"patched")]))) == [Deed.ACCEPTED]
    env.effects(A, set_state(b"b", b"2"))
    assert state(env) == [(b"a", b"1"), (b"b", b"2")]
    env.effects(A, *ended())
    assert state(env) == [(b"a", b"patched")]
    assert env.count(keys.OBJECT) == env.count(keys.STATE_PATCH) == 0


def test_patches_and_calls_of_a_key_have_their_turns_in_order(env: Env) -> None:
    env.apply(invoke(thing(), 1), patch(1, [(b"x", b"1")]), patch(2, [(b"x", b"2")]))
    env.apply(invoke(thing(), 2), patch(3, [(b"x", b"3")]), invoke(thing(), 3))
    assert started(env.effects(A, pinned(), *ended())) == [B]
    assert state(env) == [(b"x", b"2")]
    assert started(env.effects(B, pinned(), *ended())) == [C]
    assert state(env) == [(b"x", b"3")]
    assert env.count(keys.STATE_PATCH) == 0


def test_a_wrong_version_in_its_turn_changes_nothing_and_is_reported(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    version = state_patch.version_of([])
    env.apply(patch(1, [(b"x", b"1")], version))
    actions = env.effects(A, pinned(), set_state(b"a", b"1"), *ended())
    assert ReportRefusedPatch("Counter", "alice", Deed.WRONG_STATE) in actions
    assert state(env) == [(b"a", b"1")]


def test_the_same_request_patches_once(env: Env) -> None:
    first = patch(1, [(b"x", b"1")])
    assert deeds(env.apply(first, patch(2, [(b"x", b"2")]), first)) == [Deed.DONE, Deed.DONE, Deed.DONE]
    assert state(env) == [(b"x", b"2")]
    env.now_ms += REQUEST_HORIZON_MS + 1
    (late,) = env.apply(first)
    assert type(late) is RespondToIngress and late.answer == Expired()


def test_a_refusal_is_not_taken_back_by_a_repetition(env: Env) -> None:
    env.apply(patch(1, [(b"x", b"1")]))
    refused = patch(2, [(b"x", b"2")], state_patch.version_of([]))
    assert deeds(env.apply(refused, patch(3, []), refused)) == [Deed.WRONG_STATE, Deed.DONE, Deed.WRONG_STATE]
    assert state(env) == []


def test_a_workflow_is_patched_behind_its_run(env: Env) -> None:
    run = flow("alice")
    env.apply(invoke(run))
    assert deeds(env.apply(patch(1, [(b"x", b"1")], service="Flow"))) == [Deed.ACCEPTED]
    low = keys.STATE + keys.object_suffix(A, "Flow", "alice")
    assert not [*env.store.scan(low, keys.end_of(low))]
    env.effects(invocation_id(run), pinned(), *ended())
    assert [key for key, _ in env.store.scan(low, keys.end_of(low))] == [low + b"x"]


def test_more_than_one_record_may_do_goes_on_while_callers_wait(env: Env) -> None:
    """Correctness 27: two patches of all the names that there may be are two records."""
    many = [(b"%05d" % number, b"v") for number in range(ROWS_MAX)]
    env.apply(invoke(thing(), 1), patch(1, many), patch(2, [(b"x", b"1")]), invoke(thing(), 2))
    assert started(env.effects(A, pinned(), *ended())) == []
    assert len(state(env)) == ROWS_MAX
    assert env.apply(invoke(thing(), 3)) == [], "who comes now waits too"
    # Clearing so many names is the work of further records, beside what the callers do.
    assert started(env.fire_timers()) == [B]
    env.effects(B, pinned(), *ended())
    while env.fire_timers():
        pass
    assert state(env) == [(b"x", b"1")]


def test_so_many_wait_and_no_more(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    for number in range(STATE_PATCHES_WAITING_MAX):
        env.apply_batch(patch(number + 1, []))
    (answer,) = env.apply(patch(STATE_PATCHES_WAITING_MAX + 1, []))
    assert type(answer) is RespondToIngress and answer.answer == Crowded()


@pytest.mark.parametrize("names", [ROWS_MAX, ROWS_MAX + 1])
def test_a_state_with_too_many_names_is_not_compared(env: Env, names: int) -> None:
    env.apply(invoke(thing(), 1))
    pairs = [(b"%05d" % number, b"") for number in range(names)]
    for start in range(0, names, 1000):
        env.effects(A, *(set_state(name, b"") for name, _ in pairs[start : start + 1000]))
    env.effects(A, *ended())
    expected = Deed.DONE if names <= ROWS_MAX else Deed.TOO_LARGE
    assert deeds(env.apply(patch(1, [], state_patch.version_of(pairs)))) == [expected]
