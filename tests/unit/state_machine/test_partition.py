"""Leadership, parts of large commands, records that are skipped (correctness 12, 15, 21, 26)."""

from __future__ import annotations

import pytest

from perdure_processor.model import codec
from perdure_processor.model.actions import RespondToIngress, StartAttempt
from perdure_processor.model.commands import AnnounceLeader, AttemptEffects, ByLeader, Envelope, Expire, Part
from perdure_processor.model.ids import Incarnation, LeaderEpoch, Millis, NodeId, Offset, slot_of
from perdure_processor.state_machine.machine import Elected
from perdure_processor.state_machine.partition import group_of
from perdure_processor.storage import keys
from support.builders import ended, invocation_id, invoke, pinned, request, run, service, thing
from support.env import START_MS, Env, by_leader, started

A = invocation_id(service(), 1)
NODE, OTHER = NodeId("one", 11), NodeId("two", 22)


def announce(epoch: int, node: NodeId = NODE, nonce: int = 5) -> AnnounceLeader:
    return AnnounceLeader(node, LeaderEpoch(epoch), nonce)


# -- leadership ---------------------------------------------------------------------------------
def test_the_first_claim_of_an_epoch_wins_and_ties_lose(env: Env) -> None:
    env.apply(announce(1))
    assert env.elected == Elected(NODE, LeaderEpoch(1), 5)
    env.apply(announce(1, OTHER))
    assert env.elected is None
    env.apply(announce(3, OTHER))
    assert env.elected == Elected(OTHER, LeaderEpoch(3), 5)
    env.apply(announce(2))
    assert env.elected is None


def test_a_claim_is_told_with_its_nonce_so_that_only_its_maker_leads(env: Env) -> None:
    env.apply(announce(1, NODE, nonce=77))
    assert env.elected is not None and env.elected.nonce == 77


def test_an_accepted_claim_ends_its_batch_and_earlier_actions_are_dropped(env: Env) -> None:
    actions = env.apply_batch(invoke(), announce(1), invoke(service(), 2))
    assert started(actions) == [invocation_id(service(), 2)], "the first is found in `active` by the new leader"
    assert env.count(keys.ACTIVE) == 2


def test_a_refused_claim_does_not_end_its_batch(env: Env) -> None:
    env.apply(announce(2))
    assert started(env.apply_batch(invoke(), announce(1))) == [A]


def test_proposals_are_taken_in_order_and_of_the_present_term_only(env: Env) -> None:
    env.apply(announce(1))
    env.apply(invoke())
    incarnation = env.live(A).incarnation
    effects = AttemptEffects(A, incarnation, 1, 1, [pinned(), run(1)])
    assert env.apply(by_leader(effects, 2)) == [], "the first is missing"
    assert env.live(A).commands == 1
    env.apply(by_leader(effects, 1))
    assert env.live(A).commands == 2
    env.apply(by_leader(AttemptEffects(A, incarnation, 1, 2, [run(2)]), 1))
    assert env.live(A).commands == 2, "a sequence number counts once"
    env.apply(announce(2, OTHER))
    env.apply(by_leader(AttemptEffects(A, incarnation, 1, 2, ended()), 2, epoch=1))
    assert env.live(A).commands == 2, "the deposed may append, nobody listens"
    answered = env.apply(by_leader(AttemptEffects(A, incarnation, 1, 2, ended()), 1, epoch=2))
    assert type(answered[0]) is RespondToIngress


# -- parts of large commands -------------------------------------------------------------------------
def parts_of(envelope: Envelope, size: int, group: bytes = group_of(Millis(START_MS), b"12345678")) -> list[Envelope]:
    payload = codec.encode(Envelope(envelope.slot, None, envelope.command))
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [
        Envelope(None, envelope.dedup if index == len(pieces) - 1 else None, Part(group, index, len(pieces), piece))
        for index, piece in enumerate(pieces)
    ]


def test_the_last_part_applies_the_whole(env: Env) -> None:
    *before, last = parts_of(Envelope(slot_of(A), None, invoke()), 50)
    assert env.apply(*before) == []
    assert env.count(keys.PART) == len(before)
    assert started(env.apply(last)) == [A]
    assert (env.count(keys.PART), env.count(keys.EXPIRY)) == (0, 0)


def test_a_whole_in_one_batch_is_the_same_as_in_many(env: Env) -> None:
    assert started(env.apply_batch(*parts_of(Envelope(slot_of(A), None, invoke()), 50))) == [A]
    assert (env.count(keys.PART), env.count(keys.EXPIRY)) == (0, 0)


def test_groups_may_be_interleaved(env: Env) -> None:
    b = invocation_id(service(), 2)
    first = parts_of(Envelope(slot_of(A), None, invoke()), 50, b"a" * 16)
    second = parts_of(Envelope(slot_of(b), None, invoke(service(), 2)), 50, b"b" * 16)
    mixed = [part for pair in zip(first, second, strict=True) for part in pair]
    assert started(env.apply(*mixed)) == [A, b]


def test_without_all_its_parts_a_command_is_not_taken_and_its_number_not_spent(env: Env) -> None:
    env.apply(announce(1), invoke())
    effects = AttemptEffects(A, env.live(A).incarnation, 1, 1, [pinned(), run(1)])
    envelope = Envelope(None, ByLeader(LeaderEpoch(1), 1), effects)
    _lost, *rest = parts_of(envelope, 20, b"a" * 16)
    assert env.apply(*rest) == []
    assert env.live(A).commands == 1
    env.apply(*parts_of(envelope, 20, b"b" * 16))
    assert env.live(A).commands == 2
    env.expire_everything()
    assert env.count(keys.PART) == 0


def test_parts_are_found_by_age_and_not_by_what_else_expires(env: Env) -> None:
    env.apply(parts_of(Envelope(slot_of(A), None, invoke()), 50)[0])
    assert env.count(keys.EXPIRY) == 1
    env.apply(Expire(Millis(START_MS), 10))
    assert env.count(keys.PART) == 1


# -- an operator's last resort ---------------------------------------------------------------------
def test_a_record_that_cannot_be_applied_is_skipped_by_its_offset() -> None:
    poison = AttemptEffects(A, Incarnation(0), 1, 99, [run(1)])
    env = Env()
    env.apply(invoke())
    with pytest.raises(AssertionError):
        env.apply(poison)
    env = Env(skipped=frozenset((Offset(1),)))
    env.apply(invoke(), poison)
    assert started(env.apply(invoke(service(), 2))) == [invocation_id(service(), 2)]
    env.check_replay()


def test_a_record_is_never_applied_twice(env: Env) -> None:
    env.apply(invoke())
    env.offset -= 1
    with pytest.raises(AssertionError, match="was applied already"):
        env.apply(invoke(service(), 2))
    env.records.pop()


# -- time and batches ---------------------------------------------------------------------------------
def test_time_never_goes_backwards(env: Env) -> None:
    env.apply(invoke())
    env.now_ms -= 5_000
    env.apply(invoke(service(), 2))
    assert env.live(invocation_id(service(), 2)).created_ms == START_MS


def test_a_lock_taken_and_given_up_in_one_batch_over_an_older_row_is_free(env: Env) -> None:
    a, b = invocation_id(thing(), 1), invocation_id(thing(), 2)
    env.apply(invoke(thing(), 1, asked=request(1)))
    incarnation = env.live(a).incarnation
    actions = env.apply_batch(
        AttemptEffects(a, incarnation, 1, 1, [pinned(), *ended()]),
        invoke(thing(), 2),
        AttemptEffects(b, Incarnation(incarnation + 2), 1, 1, [pinned(), *ended()]),
    )
    assert len([action for action in actions if type(action) is StartAttempt]) == 1
    assert env.count(keys.OBJECT) == 0
