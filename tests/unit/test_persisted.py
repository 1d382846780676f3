"""What was ever written must be read for ever: samples of every command and row, and the layout of keys.

A release adds a directory below tests/golden/log and changes none: `--update-golden` writes only what is not there.
"""

from __future__ import annotations

import typing
from collections.abc import Callable

import pytest

from perdure_processor.model import codec, commands, effects
from perdure_processor.model.ids import InvocationId, Millis, PartitionId
from perdure_processor.storage import keys, records
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.tables import Tables, parse_segment, read_state
from support import builders as b
from support.env import START_MS, Env
from support.golden import GOLDEN
from support.samples import ID, samples

RELEASE = "0.2.0"
SAMPLES = samples()
WRITTEN = sorted((GOLDEN / "log").glob("*/*.hex"))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_written_as_this_release_writes_it(name: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / "log" / RELEASE / f"{name}.hex"
    found = codec.encode(SAMPLES[name]).hex()
    if request.config.getoption("--update-golden") and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found + "\n")
    assert found == path.read_text().strip()


@pytest.mark.parametrize("path", WRITTEN, ids=[f"{path.parent.name}-{path.stem}" for path in WRITTEN])
def test_what_any_release_wrote_is_read(path: object) -> None:
    data = bytes.fromhex(path.read_text())  # type: ignore[attr-defined]
    assert codec.decode(data) == SAMPLES[path.stem]  # type: ignore[attr-defined]


def test_there_is_a_sample_of_everything() -> None:
    sampled = {type(value) for value in SAMPLES.values()}
    for union in (commands.Command, effects.Effect, records.InvocationRow):
        assert set(typing.get_args(union)) <= sampled
    others = {records.ObjectRow, records.Progress, records.StoreIdentity, records.PromiseRow, records.JournalEvent}
    others |= {records.PendingPatch}
    assert {commands.Envelope} | others <= sampled


# -- keys and rows that are not the codec's -----------------------------------------------------
SUFFIX = keys.object_suffix(ID, "Counter", "alice")


def layout() -> dict[str, bytes]:
    return {
        'metadata("progress")': keys.metadata("progress"),
        "invocation(ID)": keys.invocation(ID),
        "segment(ID, 1)": keys.segment(ID, 1),
        "active(ID)": keys.active(ID),
        'OBJECT + object_suffix(ID, "Counter", "alice")': keys.OBJECT + SUFFIX,
        "inbox(SUFFIX, 2)": keys.inbox(SUFFIX, 2),
        'state(SUFFIX, b"n")': keys.state(SUFFIX, b"n"),
        "cleared(SUFFIX)": keys.cleared(SUFFIX),
        "timer(1000, ID, TIMER_SLEEP, 3)": keys.timer(1_000, ID, keys.TIMER_SLEEP, 3),
        "timer(1000, ID, TIMER_RETRY, 0)": keys.timer(1_000, ID, keys.TIMER_RETRY, 0),
        "timer(1000, ID, TIMER_START, 0)": keys.timer(1_000, ID, keys.TIMER_START, 0),
        "timer(0, ID, TIMER_ANSWER, 0)": keys.timer(0, ID, keys.TIMER_ANSWER, 0),
        "timer(0, ID, TIMER_CLEAR, 1)": keys.timer(0, ID, keys.TIMER_CLEAR, 1),
        "timer(0, ID, TIMER_PATCH, 0)": keys.timer(0, ID, keys.TIMER_PATCH, 0),
        "timer(0, outbox_subject(3), TIMER_TRUNCATE, 0)": keys.timer(
            0, keys.outbox_subject(PartitionId(3)), keys.TIMER_TRUNCATE, 0
        ),
        "expiry(1000, ID)": keys.expiry(1_000, ID),
        "event(ID, 3)": keys.event(ID, 3),
        "state_patch(SUFFIX, 2)": keys.state_patch(SUFFIX, 2),
        'promise(SUFFIX, "p")': keys.promise(SUFFIX, "p"),
        "expiry(1000, GROUP)": keys.expiry(1_000, b"g" * 16),
        "outbox(3, 4)": keys.outbox(PartitionId(3), 4),
        "part(GROUP, 1)": keys.part(b"g" * 16, 1),
    }


def test_the_layout_of_keys(golden: Callable[[str, str], None]) -> None:
    text = f"ID = {ID.hex()}, SUFFIX = object_suffix(ID, 'Counter', 'alice'), GROUP = b'g' * 16\n\n"
    text += "".join(f"{call:<48} {key[:2].decode()} {key[2:].hex()}\n" for call, key in layout().items())
    golden("keys.txt", text)


def test_rows_with_bytes_of_users(golden: Callable[[str, str], None]) -> None:
    """Journal segments, state, timers, inbox, parts: written by a scenario, read back from the file."""
    env = Env()
    a, waiting = b.invocation_id(b.thing(), 1), b.invocation_id(b.thing(), 2)
    env.apply(b.invoke(b.thing(), 1, asked=b.request(1)), b.invoke(b.thing(), 2, asked=b.request(2)))
    env.effects(a, b.pinned(), b.set_state(b"n", b"\x00value"), b.sleep(1, START_MS + 100), b.run(2))
    env.apply(commands.Part(b"g" * 16, 0, 2, b"\x00part"))
    kinds = (keys.JOURNAL, keys.STATE, keys.TIMER, keys.INBOX, keys.PART, keys.ACTIVE, keys.EXPIRY)
    rows = {key: value for key, value in env.dump().items() if key[:2] in kinds}
    golden("rows.txt", "".join(f"{key.hex()} {value.hex()}\n" for key, value in rows.items()))

    store = MemoryKeyValue()
    lines = (line.split() for line in (GOLDEN / "rows.txt").read_text().splitlines())
    store.write({bytes.fromhex(key): bytes.fromhex(value) for key, value in lines})
    tables = Tables(store)
    suffix = keys.object_suffix(a, "Counter", "alice")
    assert list(read_state(store, suffix)) == [(b"n", b"\x00value")]
    assert tables.next_in_inbox(suffix, 0, 1) == (0, waiting)
    assert tables.timer(keys.timer(START_MS + 100, a, keys.TIMER_SLEEP, 1)) == (0, b"")
    assert tables.take_parts(b"g" * 16, 1) == (START_MS, [b"\x00part"])
    first, at, frames = parse_segment(store.get(keys.segment(InvocationId(a), 1)) or b"")
    assert (first, at) == (1, Millis(START_MS))
    assert frames.startswith(b.set_state(b"n", b"\x00value").frame)
    assert [id for _, id in tables.due_expiries(Millis(keys.DEADLINE_MAX))] == [b"g" * 16]
