"""● core · PartitionIndex: where the records of one partition lie in the files of the embedded log.

Twenty bytes a record in three arrays, bounded by the segments that are kept.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from perdure_processor.model.ids import Offset

# A place is a segment's number above this many bits and a position in it below.
PLACE_BITS = 32
POSITION_MASK = (1 << PLACE_BITS) - 1


class PartitionIndex:
    """`offsets`, `places` and `sizes` run in parallel, in offset order; `append` to all three adds a record.

    `start` is the smallest position that a reader may still read from, `next` the one after the last record."""

    __slots__ = ("next", "offsets", "places", "sizes", "start", "trimmed")

    def __init__(self, start: Offset) -> None:
        self.offsets = array("Q")
        self.places = array("Q")
        self.sizes = array("I")
        self.start = start
        self.next = start
        # Records before this are not needed; they stay readable until their segment goes.
        self.trimmed = start

    def find(self, position: Offset) -> int:
        """Index of the first record at or after a position."""
        if position >= self.next:
            return len(self.offsets)
        return bisect_left(self.offsets, position)

    def needs(self, segment: int) -> bool:
        """Whether a record that is not trimmed lies in this segment or an earlier one."""
        first = self.find(self.trimmed)
        return first < len(self.places) and self.places[first] >> PLACE_BITS <= segment

    def forget(self, segment: int) -> None:
        """Drop what lies in this segment and earlier ones."""
        count = bisect_left(self.places, (segment + 1) << PLACE_BITS)
        if count:
            self.start = Offset(self.offsets[count - 1] + 1)
            del self.offsets[:count]
            del self.places[:count]
            del self.sizes[:count]
