"""● core · Invocation ids that follow from what is called: the same for ever, with nothing stored."""

from __future__ import annotations

from perdure.protocol import ids
from perdure_processor.model.ids import InvocationId


def workflow_id(workflow: str, key: str) -> InvocationId:
    """The id of a workflow's run."""
    return InvocationId(ids.invocation_id(ids.partition_key_of_key(key), ids.workflow_uuid(workflow, key)))


def idempotent_id(service: str, key: str | None, handler: str, idempotency_key: str) -> InvocationId:
    """The id of an invocation with an idempotency key; `key` is None for plain services."""
    if key is None:
        partition_key = ids.partition_key_of_idempotency_key(service, idempotency_key)
    else:
        partition_key = ids.partition_key_of_key(key)
    return InvocationId(ids.invocation_id(partition_key, ids.idempotent_uuid(service, key, handler, idempotency_key)))
