"""● core · What things are called: ids, offsets, epochs, targets, and which partition owns a key."""

from __future__ import annotations

from typing import NewType

from perdure_processor.model.value import value

# 24 raw bytes: partition key (u64 big-endian) and uuid (u128 big-endian); text form in perdure.protocol.ids.
InvocationId = NewType("InvocationId", bytes)
PartitionId = NewType("PartitionId", int)
Offset = NewType("Offset", int)
Millis = NewType("Millis", int)
LeaderEpoch = NewType("LeaderEpoch", int)
DeploymentId = NewType("DeploymentId", str)
CompletionId = NewType("CompletionId", int)

# A life of an invocation row: the offset of the record that created it (correctness 2).
Incarnation = NewType("Incarnation", int)

SLOT_BITS = 12
SLOTS = 1 << SLOT_BITS
METADATA_PARTITION = PartitionId(0xFFFF)


@value
class InvocationTarget:
    """The address of a handler; `key` is None exactly for plain services."""

    service: str
    key: str | None
    handler: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.service, self.key, self.handler) if part is not None)


@value
class NodeId:
    """One incarnation of a node: `generation` is 64 random bits drawn at each process start (correctness 21)."""

    name: str
    generation: int


def slot_of(invocation_id: InvocationId) -> int:
    """The slot (0..4095) of an invocation: the top bits of its partition key."""
    return (invocation_id[0] << 4) | (invocation_id[1] >> 4)


def partition_of_slot(slot: int, partitions: int) -> PartitionId:
    """Contiguous ranges of slots: the one layout there is now."""
    return PartitionId(slot * partitions >> SLOT_BITS)
