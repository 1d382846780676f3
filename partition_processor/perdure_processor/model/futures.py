"""● core · What a suspended handler waits for: a tree of completions and signals, and when it resolves."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import field

from perdure_processor.model.value import value


class Combinator(enum.IntEnum):
    """How the children of a node decide it; numbers are those of the service protocol."""

    UNKNOWN = 0
    FIRST_COMPLETED = 1
    ALL_COMPLETED = 2
    FIRST_SUCCEEDED_OR_ALL_FAILED = 3
    ALL_SUCCEEDED_OR_FIRST_FAILED = 4


class Outcome(enum.Enum):
    """What a resolved node passes upwards; UNDETERMINED could be either, so its parent wakes the handler."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNDETERMINED = "undetermined"


@value
class Future:
    """One node. Leaves are completion ids, signal indexes and signal names."""

    completions: list[int] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    nested: list[Future] = field(default_factory=list)
    combinator: int = Combinator.FIRST_COMPLETED

    def is_empty(self) -> bool:
        return not (self.completions or self.signals or self.names or self.nested)

    def has_leaves(self) -> bool:
        """Whether anything at all is awaited, at any depth."""
        return bool(self.completions or self.signals or self.names) or any(child.has_leaves() for child in self.nested)

    def awaits_any_of(self, completions: Collection[int]) -> bool:
        """Whether one of these completion ids is a leaf, at any depth."""
        return any(leaf in completions for leaf in self.completions) or any(
            child.awaits_any_of(completions) for child in self.nested
        )


# Looks a leaf up: a completion id, a signal index (negative), or a signal name. None: not there yet.
Lookup = Callable[[int | str], Outcome | None]


def signal_leaf(index: int) -> int:
    """Signals and completions share the lookup's integers; signals are the negative ones."""
    return -index


def resolve(future: Future, lookup: Lookup) -> Outcome | Future:
    """The outcome, or what is left to wait for: resolved children are taken out of the tree.

    Depth is bounded by FUTURE_DEPTH_MAX before a tree gets here."""
    seen: list[Outcome] = []
    completions = [leaf for leaf in future.completions if not _take(lookup(leaf), seen)]
    signals = [leaf for leaf in future.signals if not _take(lookup(signal_leaf(leaf)), seen)]
    names = [leaf for leaf in future.names if not _take(lookup(leaf), seen)]
    nested: list[Future] = []
    for child in future.nested:
        below = resolve(child, lookup)
        if isinstance(below, Outcome):
            seen.append(below)
        else:
            nested.append(below)
    rest = Future(completions, signals, names, nested, future.combinator)
    decided = _decide(future.combinator, seen, rest.is_empty())
    return rest if decided is None else decided


def _take(outcome: Outcome | None, seen: list[Outcome]) -> bool:
    if outcome is None:
        return False
    seen.append(outcome)
    return True


def _decide(combinator: int, seen: list[Outcome], all_resolved: bool) -> Outcome | None:
    match combinator:
        case Combinator.FIRST_COMPLETED:
            if not seen:
                return None
            # Several at once that differ: which came first is the handler's to say.
            return seen[0] if seen.count(seen[0]) == len(seen) else Outcome.UNDETERMINED
        case Combinator.ALL_COMPLETED:
            return Outcome.SUCCESS if all_resolved else None
        case Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED:
            if Outcome.UNDETERMINED in seen:
                return Outcome.UNDETERMINED
            if Outcome.SUCCESS in seen:
                return Outcome.SUCCESS
            return Outcome.FAILURE if all_resolved else None
        case Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED:
            if Outcome.UNDETERMINED in seen:
                return Outcome.UNDETERMINED
            if Outcome.FAILURE in seen:
                return Outcome.FAILURE
            return Outcome.SUCCESS if all_resolved else None
        case _:
            return Outcome.UNDETERMINED if seen else None
