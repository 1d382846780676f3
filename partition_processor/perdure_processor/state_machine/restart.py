"""● core · Restart as new: a completed invocation runs again under another id, perhaps from the middle."""

from __future__ import annotations

from perdure.protocol import framing, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import encode_frame
from perdure_processor.model.actions import Acted, Crowded, Deed, Missing
from perdure_processor.model.commands import RestartAsNew
from perdure_processor.model.ids import Incarnation, slot_of
from perdure_processor.model.limits import RESTART_BYTES_MAX, RESTART_ENTRIES_MAX
from perdure_processor.model.schema import HandlerKind
from perdure_processor.state_machine import lifecycle, operations
from perdure_processor.state_machine.step import Step
from perdure_processor.storage.records import Completed, Live, Status

# (frame, whether it is a command)
_Entry = tuple[bytes, bool]


def on_restart(step: Step, command: RestartAsNew) -> None:
    """Create the new invocation from the old one's input, or from its journal up to entry `from_index`."""
    if operations.answered_before(step, command.id, command.request, command.issued_ms):
        return
    row = step.tables.invocation(command.id)
    if not isinstance(row, Live | Completed):
        step.respond(command.request, Missing())
        return
    if operations.crowded(step, row):
        step.respond(command.request, Crowded())
        return
    refused = _may_restart(row, command)
    if refused is None:
        assert type(row) is Completed
        copied = _prefix(step, command, row)
        if isinstance(copied, Acted):
            refused = copied
        else:
            _create(step, command, row, copied)
    done = refused or Acted(Deed.DONE, command.new_id)
    operations.acted(step, command.id, command.request, command.issued_ms, done)


def _may_restart(row: Live | Completed, command: RestartAsNew) -> Acted | None:
    if type(row) is Live:
        started = row.status not in (Status.SCHEDULED, Status.INBOXED)
        return Acted(Deed.NOT_COMPLETED if started else Deed.NOT_STARTED)
    assert type(row) is Completed
    if row.handler_kind == HandlerKind.WORKFLOW:
        return Acted(Deed.IS_WORKFLOW)
    if not row.segments:
        return Acted(Deed.NO_INPUT)
    if command.from_index and row.deployment_id is None and (command.keep or command.repin is not None):
        return Acted(Deed.NOT_PINNED)
    return None if command.repin is None else operations.wrong_version(row, command.repin)


def _prefix(step: Step, command: RestartAsNew, row: Completed) -> list[_Entry] | Acted:
    """Commands 0 … from_index and the completions of those, wherever they stand, in the order of the journal."""
    if command.from_index >= row.entries:
        return Acted(Deed.BAD_PREFIX, None, f"the journal has {row.entries} entries")
    copied: list[_Entry] = []
    missing: dict[int, str] = {}
    index = size = 0
    for _, _, frames in step.tables.journal_segments(command.id, row.segments):
        for code, _, payload in framing.iter_frames(frames):
            if framing.is_command(code):
                if index <= command.from_index:
                    copied.append((encode_frame(code, payload), True))
                    size += len(payload)
                    for completion_id in messages.completion_ids(code, payload):
                        missing[completion_id] = framing.message_name(code)
            else:
                told = pb.Notification.FromString(payload)
                if told.WhichOneof("id") == "completion_id" and missing.pop(told.completion_id, None) is not None:
                    copied.append((encode_frame(code, payload), False))
                    size += len(payload)
            index += 1
            if not missing and index > command.from_index:
                break
            if len(copied) > RESTART_ENTRIES_MAX or size > RESTART_BYTES_MAX:
                bounds = f"{RESTART_ENTRIES_MAX} entries and {RESTART_BYTES_MAX} bytes"
                return Acted(Deed.TOO_LARGE, None, f"at most {bounds} of a journal are copied")
        if not missing and index > command.from_index:
            break
    if missing:
        name = next(iter(missing.values()))
        return Acted(Deed.BAD_PREFIX, None, f"a {name} up to entry {command.from_index} has no completion")
    return copied


def _create(step: Step, command: RestartAsNew, row: Completed, copied: list[_Entry]) -> None:
    assert slot_of(command.new_id) == slot_of(command.id), "a key, and so an invocation of it, has one slot"
    new = Live(
        Status.SCHEDULED,
        Incarnation(step.offset),
        0,
        row.target,
        row.service_kind,
        row.handler_kind,
        None,
        [],
        None,
        [],
        row.journal_retention_ms,
        row.completion_retention_ms,
        step.now_ms,
        step.now_ms,
        restarted_from=command.id,
    )
    if command.repin is not None:
        new.deployment_id, new.protocol_version = command.repin.deployment_id, row.protocol_version
    elif command.keep:
        new.deployment_id, new.protocol_version = row.deployment_id, row.protocol_version
    for frame, is_command in copied:
        step.tables.append_entry(command.new_id, new, frame, is_command)
    lifecycle.begin_in_turn(step, command.new_id, new)
