"""◐ shell · The requests that must wait for the node: ask its dispatcher, turn its answer into a response."""

from __future__ import annotations

import logging
from typing import TypeAlias, assert_never

from perdure_processor.model.schema import HandlerKind, HandlerSchema, Schema
from perdure_server.ingress import errors, responses
from perdure_server.ingress.paths import Attach, Call, CompleteAwakeable, Output, Send
from perdure_server.ingress.requests import AttachAnswer, Dispatcher, InvokeRequest, OutputAnswer, Success
from perdure_server.ingress.responses import Response

logger = logging.getLogger(__name__)

Waiting: TypeAlias = Call | Send | Attach | Output | CompleteAwakeable


async def respond(dispatcher: Dispatcher, schema: Schema, request: Waiting) -> Response:
    """The node's answer to a request that has to wait for it."""
    try:
        match request:
            case Call():
                invoke = request.request
                return responses.call_response(
                    await dispatcher.call(invoke), invoke.handler, idempotent=_is_idempotent(invoke)
                )
            case Send():
                invoke = request.request
                return responses.send_response(await dispatcher.send(invoke), idempotent=_is_idempotent(invoke))
            case Attach():
                attached = await dispatcher.attach(request.invocation_id)
                return responses.attach_response(
                    attached, request.invocation_id, request.handler or _handler_of(schema, attached)
                )
            case Output():
                output = await dispatcher.output(request.invocation_id)
                return responses.output_response(output, request.handler or _handler_of(schema, output))
            case CompleteAwakeable():
                completed = await dispatcher.complete_awakeable(
                    request.invocation_id, request.signal_index, request.value, request.failure
                )
                return responses.completion_response(completed)
    except errors.RequestError as error:
        return responses.refusal(error)
    except Exception:
        # Our mistake, in the node or here: the client learns that, the log learns what.
        logger.exception("cannot answer %s", type(request).__name__)
        return responses.refusal(errors.internal())
    assert_never(request)


def stopping_response(request: Waiting) -> Response:
    """What a request gets that still waits when the server ends; what it asked of the node may go on."""
    match request:
        case Call() | Send():
            error = errors.unavailable(
                "the server is stopping",
                reads=False,
                idempotent=_is_idempotent(request.request),
                may_have_run=True,
            )
        case CompleteAwakeable():
            error = errors.unavailable("the server is stopping", reads=False, idempotent=True, may_have_run=True)
        case Attach() | Output():
            error = errors.unavailable("the server is stopping", reads=True, idempotent=True, may_have_run=False)
    return responses.refusal(error)


def _is_idempotent(invoke: InvokeRequest) -> bool:
    return invoke.idempotency_key is not None or invoke.handler.kind is HandlerKind.WORKFLOW


def _handler_of(schema: Schema, answer: AttachAnswer | OutputAnswer) -> HandlerSchema | None:
    """Whose output an answer is, when the request named only an id."""
    if not isinstance(answer, Success) or answer.target is None:
        return None
    service = schema.services.get(answer.target.service)
    return None if service is None else service.handlers.get(answer.target.handler)
