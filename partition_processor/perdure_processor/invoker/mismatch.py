"""● core · What the journal has where a replay went another way.

An SDK that finds a mismatch says which command the code asks for now, and describes the recorded one in prose, of
which one SDK has the two sides the wrong way round. The journal is here: it is asked instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from perdure.protocol import messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import is_command, iter_frames
from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.ids import Millis
from perdure_processor.model.limits import FAILURE_TEXT_MAX


def with_recorded(failure: FailureInfo, segments: Iterable[tuple[int, Millis, bytes]]) -> FailureInfo:
    """The failure, with the command that the journal has at its index, where it has one."""
    left = failure.command_index
    if left is None:
        return failure
    for _, _, frames in segments:
        for code, _, payload in iter_frames(frames):
            if not is_command(code):
                continue
            if left == 0:
                name = _subject(code, payload)[:FAILURE_TEXT_MAX]
                return replace(failure, recorded_type=code, recorded_name=name or None)
            left -= 1
    return failure


def _subject(code: int, payload: bytes) -> str:
    """The label that the user gave the command, else what it is about."""
    message = messages.decode_message(code, payload)
    match message:
        case pb.SendSignalCommandMessage(entry_name=label) if label:
            return label
        case pb.SendSignalCommandMessage():
            return message.name if message.HasField("name") else ""
        case pb.CallCommandMessage(name="") | pb.OneWayCallCommandMessage(name=""):
            return f"{message.service_name}/{message.handler_name}"
        case (
            pb.GetLazyStateCommandMessage(name="")
            | pb.GetEagerStateCommandMessage(name="")
            | pb.SetStateCommandMessage(name="")
            | pb.ClearStateCommandMessage(name="")
        ):
            return message.key.decode(errors="replace")
        case (
            pb.GetPromiseCommandMessage(name="")
            | pb.PeekPromiseCommandMessage(name="")
            | pb.CompletePromiseCommandMessage(name="")
        ):
            return message.key
        case _:
            return str(getattr(message, "name", ""))
