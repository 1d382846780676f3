"""A journal mismatch names what was recorded, from the journal and from nobody's prose."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from perdure.protocol import messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType, encode_frame
from perdure_processor.invoker.memory_transport import Exchange
from perdure_processor.invoker.mismatch import with_recorded
from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.ids import Millis, PartitionId
from perdure_processor.storage.records import Live
from perdure_server.ingress.requests import Accepted

from .test_bounds import Node, answer, endpoints, scenario, until

CODES = {cls: code for code, cls in messages.MESSAGE_CLASSES.items()}


def frame(message: Message) -> bytes:
    return encode_frame(CODES[type(message)], message.SerializeToString())


def mismatch(index: int | None) -> FailureInfo:
    return FailureInfo(570, "no", "RT0016", "", index, None, 0x040C)


def recorded(index: int | None, *segments: list[Message]) -> tuple[int | None, str | None]:
    """Type and name found at a command index; in each segment, a notification follows each of the commands."""
    notification = encode_frame(MessageType.RUN_COMPLETION_NOTIFICATION, b"")
    rows = [(0, Millis(1), b"".join(frame(entry) + notification for entry in segment)) for segment in segments]
    found = with_recorded(mismatch(index), rows)
    assert (found.message, found.command_index, found.command_type) == ("no", index, 0x040C)
    return found.recorded_type, found.recorded_name


def test_commands_are_counted_and_notifications_are_not() -> None:
    first: list[Message] = [pb.InputCommandMessage(), pb.RunCommandMessage(name="validate")]
    second: list[Message] = [pb.RunCommandMessage(name="charge")]
    run = CODES[pb.RunCommandMessage]
    assert recorded(1, first, second) == (run, "validate")
    assert recorded(2, first, second) == (run, "charge")


@pytest.mark.parametrize("index", [None, 1, 9])
def test_where_nothing_was_recorded_nothing_is_added(index: int | None) -> None:
    assert recorded(index, [pb.InputCommandMessage()]) == (None, None)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (pb.SleepCommandMessage(wake_up_time=1), None),
        (pb.CallCommandMessage(service_name="Bank", handler_name="pay"), "Bank/pay"),
        (pb.CallCommandMessage(service_name="Bank", handler_name="pay", name="label"), "label"),
        (pb.OneWayCallCommandMessage(service_name="Bank", handler_name="pay"), "Bank/pay"),
        (pb.SetStateCommandMessage(key=b"balance"), "balance"),
        (pb.GetLazyStateCommandMessage(key=b"balance"), "balance"),
        (pb.GetPromiseCommandMessage(key="paid"), "paid"),
        (pb.SendSignalCommandMessage(name="go"), "go"),
        (pb.SendSignalCommandMessage(name="go", entry_name="label"), "label"),
        (pb.SendSignalCommandMessage(idx=1), None),
        (pb.ClearAllStateCommandMessage(), None),
    ],
    ids=str,
)
def test_a_command_without_a_label_is_named_by_what_it_is_about(entry: Message, name: str | None) -> None:
    assert recorded(1, [pb.InputCommandMessage(), entry]) == (CODES[type(entry)], name)


@pytest.mark.parametrize(
    ("index", "name"), [(1, "charge"), (2, None)], ids=["in the replay", "of this attempt: not recorded before"]
)
def test_the_failure_that_is_stored_has_both_sides(index: int, name: str | None) -> None:
    async def work(node: Node) -> None:
        attempts = 0

        async def handler(exchange: Exchange) -> None:
            nonlocal attempts
            attempts += 1
            charge = frame(pb.RunCommandMessage(name="charge", result_completion_id=1))
            refund = frame(pb.RunCommandMessage(name="refund", result_completion_id=2))
            no = pb.ErrorMessage(code=570, message="no", related_command_index=index, related_command_name="refund")
            boom = pb.ErrorMessage(code=500, message="boom", next_retry_delay=1)
            await answer(exchange, charge + frame(boom) if attempts == 1 else refund + frame(no))

        endpoints(node, handler)
        sent = await node.dispatcher.send(node.request())
        assert isinstance(sent, Accepted)

        def failure() -> FailureInfo | None:
            row = node.host.processors[PartitionId(0)]._tables.invocation(sent.invocation_id)
            return row.last_failure if isinstance(row, Live) else None

        await until(lambda: (found := failure()) is not None and found.code == 570)
        stored = failure()
        assert stored is not None
        assert (stored.command_name, stored.recorded_name) == ("refund", name)

    scenario(work)
