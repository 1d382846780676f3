"""What the tests of the ingress share: a small schema, and a node that answers as it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from perdure_processor.model.ids import DeploymentId, InvocationId, Millis
from perdure_processor.model.schema import (
    DeploymentSchema,
    HandlerKind,
    HandlerSchema,
    InputRule,
    RetryPolicy,
    Schema,
    ServiceKind,
    ServiceSchema,
)
from perdure_server.ingress.requests import (
    AttachAnswer,
    CallAnswer,
    CompletionAnswer,
    InvokeRequest,
    OutputAnswer,
    SendAnswer,
)

NOTHING = InputRule(only_empty=True, content_type=None, body_required=False)
ANYTHING = InputRule(only_empty=False, content_type="*/*", body_required=False)
JSON = InputRule(only_empty=False, content_type="application/json", body_required=False)
JSON_REQUIRED = InputRule(only_empty=False, content_type="application/json", body_required=True)

ID = InvocationId(bytes(range(24)))


def handler(
    name: str,
    kind: HandlerKind = HandlerKind.STATELESS,
    *,
    public: bool = True,
    rules: tuple[InputRule, ...] = (NOTHING, JSON),
    output: str | None = "application/json",
    set_if_empty: bool = False,
) -> HandlerSchema:
    return HandlerSchema(
        name=name,
        kind=kind,
        public=public,
        input_rules=list(rules),
        output_content_type=output,
        set_content_type_if_empty=set_if_empty,
        inactivity_timeout_ms=60_000,
        abort_timeout_ms=60_000,
        journal_retention_ms=0,
        completion_retention_ms=0,
        lazy_state=False,
        retry_policy=RetryPolicy(50, 2.0, 10_000, 70, False),
    )


def service(
    name: str, kind: ServiceKind, *handlers: HandlerSchema, public: bool = True, deployment: str = "dp_1"
) -> ServiceSchema:
    by_name = {each.name: each for each in handlers}
    return ServiceSchema(name, kind, 1, DeploymentId(deployment), public, by_name)


def deployment(name: str, max_version: int) -> DeploymentSchema:
    return DeploymentSchema(
        id=DeploymentId(name),
        uri="http://localhost:9080",
        http1=False,
        bidirectional=True,
        additional_headers={},
        min_protocol_version=1,
        max_protocol_version=max_version,
        created_at_ms=Millis(0),
        sdk_version=None,
        services={},
    )


def sample_schema() -> Schema:
    """One service of each kind, a private one, one of an old deployment, and every kind of input."""
    plain, keyed, flow = ServiceKind.SERVICE, ServiceKind.VIRTUAL_OBJECT, ServiceKind.WORKFLOW
    services = [
        service(
            "Greeter",
            plain,
            handler("greet"),
            handler("hidden", public=False),
            handler("any", rules=(NOTHING, ANYTHING)),
            handler("text", rules=(InputRule(False, "text/*", False),)),
            handler("must", rules=(JSON_REQUIRED,)),
            handler("nothing", rules=(NOTHING,)),
            handler("raw", output="application/octet-stream", set_if_empty=True),
            handler("untyped", output=None),
        ),
        service("Counter", keyed, handler("add", HandlerKind.EXCLUSIVE), handler("get", HandlerKind.SHARED)),
        service("Flow", flow, handler("run", HandlerKind.WORKFLOW), handler("poke", HandlerKind.SHARED)),
        service("Private", plain, handler("greet"), public=False),
        service("Ancient", plain, handler("greet"), deployment="dp_old"),
    ]
    deployments = [deployment("dp_1", 6), deployment("dp_old", 4)]
    return Schema(1, {each.name: each for each in services}, {each.id: each for each in deployments})


@dataclass
class ScriptedNode:
    """A Dispatcher that gives the answers of the test and remembers what it was asked.

    A call waits while `gate` is set and not open, so that a test decides when the node answers."""

    call_answer: CallAnswer | Exception | None = None
    send_answer: SendAnswer | None = None
    attach_answer: AttachAnswer | None = None
    output_answer: OutputAnswer | None = None
    completion_answer: CompletionAnswer | None = None
    gate: asyncio.Event | None = None
    asked: asyncio.Queue[object] = field(default_factory=asyncio.Queue)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, request: InvokeRequest) -> CallAnswer:
        self.asked.put_nowait(request)
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        assert self.call_answer is not None
        if isinstance(self.call_answer, Exception):
            raise self.call_answer
        return self.call_answer

    async def send(self, request: InvokeRequest) -> SendAnswer:
        self.asked.put_nowait(request)
        assert self.send_answer is not None
        return self.send_answer

    async def attach(self, invocation_id: InvocationId) -> AttachAnswer:
        self.asked.put_nowait(invocation_id)
        assert self.attach_answer is not None
        return self.attach_answer

    async def output(self, invocation_id: InvocationId) -> OutputAnswer:
        self.asked.put_nowait(invocation_id)
        assert self.output_answer is not None
        return self.output_answer

    async def complete_awakeable(
        self,
        invocation_id: InvocationId,
        signal_index: int,
        value: bytes | None,
        failure: tuple[int, str] | None,
    ) -> CompletionAnswer:
        self.asked.put_nowait((invocation_id, signal_index, value, failure))
        assert self.completion_answer is not None
        return self.completion_answer


class FakeClock:
    """Time that stands still until the test moves it."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms

    def advance_s(self, seconds: int) -> None:
        self._now_ms += seconds * 1000

    def now_ms(self) -> Millis:
        return Millis(self._now_ms)

    def monotonic_ms(self) -> int:
        return self._now_ms
