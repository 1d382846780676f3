"""Journal entries as JSON: what the real server shows for the same bytes."""

from __future__ import annotations

import pytest

from perdure.protocol.framing import MessageType
from perdure_server.admin.sql.journal_json import entry_json, entry_lite_json

CALLEE = "inv_17VOzJQpUker3fMeeRomldujB2F0Wq0i7D"
# (code, payload in hex, entry_json, entry_lite_json), as restate-server 1.7.12 answered
SHOWN = [
    (
        MessageType.GET_PROMISE_COMMAND,
        "0a01705801",
        '{"Command":{"GetPromise":{"key":"p","completion_id":1,"name":""}}}',
        '{"Command":{"GetPromise":{"key":"p","completion_id":1}}}',
    ),
    (
        MessageType.COMPLETE_PROMISE_COMMAND,
        "0a017012060a04227676225801",
        '{"Command":{"CompletePromise":{"key":"p","value":{"Success":[34,118,118,34]},"completion_id":1,"name":""}}}',
        '{"Command":{"CompletePromise":{"key":"p","completion_id":1}}}',
    ),
    (
        MessageType.COMPLETE_PROMISE_COMPLETION_NOTIFICATION,
        "08012200",
        '{"Notification":{"Completion":{"CompletePromise":{"completion_id":1,"result":"Void"}}}}',
        '{"Notification":{"ty":{"Completion":"CompletePromise"},"id":{"CompletionId":1},"result":"Void"}}',
    ),
    (
        MessageType.GET_PROMISE_COMPLETION_NOTIFICATION,
        "08012a060a0422767622",
        '{"Notification":{"Completion":{"GetPromise":{"completion_id":1,"result":{"Success":[34,118,118,34]}}}}}',
        '{"Notification":{"ty":{"Completion":"GetPromise"},"id":{"CompletionId":1},"result":"Success"}}',
    ),
    (
        MessageType.OUTPUT_COMMAND,
        "7a0b08a60312066e6f20776179",
        '{"Command":{"Output":{"result":{"Failure":{"code":422,"message":"no way"}},"name":""}}}',
        '{"Command":{"Output":{"result":"Failure"}}}',
    ),
    (
        MessageType.OUTPUT_COMMAND,
        "72060a04226f6b22",
        '{"Command":{"Output":{"result":{"Success":[34,111,107,34]},"name":""}}}',
        '{"Command":{"Output":{"result":"Success"}}}',
    ),
    (
        MessageType.GET_EAGER_STATE_COMMAND,
        "0a016e6a00",
        '{"Command":{"GetEagerState":{"key":"n","result":"Void","name":""}}}',
        '{"Command":{"GetEagerState":{"key":"n","result":"Void"}}}',
    ),
    (
        MessageType.SET_STATE_COMMAND,
        "0a016e1a030a0135",
        '{"Command":{"SetState":{"key":"n","value":[53],"name":""}}}',
        '{"Command":{"SetState":{"key":"n"}}}',
    ),
    (
        MessageType.RUN_COMMAND,
        "580162036f6e65",
        '{"Command":{"Run":{"completion_id":1,"name":"one"}}}',
        '{"Command":{"Run":{"completion_id":1,"name":"one"}}}',
    ),
    (
        MessageType.RUN_COMPLETION_NOTIFICATION,
        "08012a050a03227822",
        '{"Notification":{"Completion":{"Run":{"completion_id":1,"result":{"Success":[34,120,34]}}}}}',
        '{"Notification":{"ty":{"Completion":"Run"},"id":{"CompletionId":1},"result":"Success"}}',
    ),
    (
        MessageType.CALL_INVOCATION_ID_COMPLETION_NOTIFICATION,
        "0801820126" + CALLEE.encode().hex(),
        f'{{"Notification":{{"Completion":{{"CallInvocationId":{{"completion_id":1,"invocation_id":"{CALLEE}"}}}}}}}}',
        '{"Notification":{"ty":{"Completion":"CallInvocationId"},"id":{"CompletionId":1},"result":"InvocationId"}}',
    ),
    (
        MessageType.SIGNAL_NOTIFICATION,
        "10112a030a0131",
        '{"Notification":{"Signal":{"id":{"Index":17},"result":{"Success":[49]}}}}',
        '{"Notification":{"ty":"Signal","id":{"SignalIndex":17},"result":"Success"}}',
    ),
]


@pytest.mark.parametrize(("code", "payload", "whole", "lite"), SHOWN, ids=[f"{row[0].name}-{row[1]}" for row in SHOWN])
def test_an_entry_is_shown_as_the_original_shows_it(code: int, payload: str, whole: str, lite: str) -> None:
    assert entry_json(code, bytes.fromhex(payload), None) == whole
    assert entry_lite_json(code, bytes.fromhex(payload), None) == lite


def test_a_call_names_its_callee() -> None:
    payload = bytes.fromhex("0a03537663120677616974657250015802")
    assert entry_lite_json(MessageType.CALL_COMMAND, payload, CALLEE) == (
        f'{{"Command":{{"Call":{{"invocation_id":"{CALLEE}","invocation_target":{{"Service":{{"name":"Svc",'
        '"handler":"waiter","scope":null}},"invocation_id_completion_id":1,"result_completion_id":2}}}'
    )


@pytest.mark.parametrize("code", [code for code in MessageType if 0x0400 <= code < 0xFC00])
def test_every_message_can_be_shown(code: MessageType) -> None:
    assert entry_json(code, b"", None).startswith(('{"Command"', '{"Notification"'))
    assert entry_lite_json(code, b"", None).startswith(('{"Command"', '{"Notification"'))
