"""When a suspended handler is woken: the future tree against the table of the service protocol, by brute force."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_processor.model.futures import Combinator, Future, Outcome, resolve

LEAVES = 5
OUTCOMES = st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE])


def leaf_lists() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, LEAVES), max_size=2)


def node(children: st.SearchStrategy[list[Future]]) -> st.SearchStrategy[Future]:
    return st.builds(Future, leaf_lists(), st.just([]), st.just([]), children, st.integers(0, 4)).filter(
        lambda future: not future.is_empty()
    )


TREES = st.recursive(node(st.just([])), lambda below: node(st.lists(below, min_size=1, max_size=2)), max_leaves=5)


def outcomes(future: Future, arrived: dict[int, Outcome]) -> set[Outcome | None]:
    """All that a handler may make of this node: None is "not resolved". Unknown combinators may do either."""
    results: list[set[Outcome | None]] = [{arrived.get(leaf)} for leaf in future.completions]
    results += [outcomes(child, arrived) for child in future.nested]
    found: set[Outcome | None] = set()
    for combination in _product(results):
        resolved = [outcome for outcome in combination if outcome is not None]
        everything = len(resolved) == len(combination)
        match future.combinator:
            case Combinator.FIRST_COMPLETED:
                # Which of those that are there came first, this model does not know.
                found |= set(resolved) if resolved else {None}
            case Combinator.ALL_COMPLETED:
                found.add(Outcome.SUCCESS if everything else None)
            case Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED:
                failed = Outcome.FAILURE if everything else None
                found.add(Outcome.SUCCESS if Outcome.SUCCESS in resolved else failed)
            case Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED:
                succeeded = Outcome.SUCCESS if everything else None
                found.add(Outcome.FAILURE if Outcome.FAILURE in resolved else succeeded)
            case _:
                found |= {Outcome.SUCCESS, Outcome.FAILURE} if resolved else {None}
    return found


def _product(sets: list[set[Outcome | None]]) -> list[list[Outcome | None]]:
    combinations: list[list[Outcome | None]] = [[]]
    for each in sets:
        combinations = [[*begun, choice] for begun in combinations for choice in each]
    return combinations


@settings(max_examples=400)
@given(TREES, st.dictionaries(st.integers(1, LEAVES), OUTCOMES))
def test_a_handler_sleeps_only_if_it_could_not_go_on_in_any_way(tree: Future, arrived: dict[int, Outcome]) -> None:
    found = resolve(tree, arrived.get)  # type: ignore[arg-type]
    possible = outcomes(tree, arrived)
    if not isinstance(found, Outcome):
        assert None in possible, "it is certainly resolved, and sleeps"
    elif found is not Outcome.UNDETERMINED:  # else it is woken in any case, to see for itself
        assert possible != {None}, "it is certainly not resolved, and is woken"
        if None not in possible:
            assert found in possible


def only_certain(tree: Future) -> bool:
    return tree.combinator != Combinator.UNKNOWN and all(only_certain(child) for child in tree.nested)


@settings(max_examples=400)
@given(
    TREES.filter(only_certain), st.lists(st.tuples(st.integers(1, LEAVES), OUTCOMES), unique_by=lambda pair: pair[0])
)
def test_one_by_one_or_all_at_once_the_handler_is_woken_at_the_same_moment(
    tree: Future, arrivals: list[tuple[int, Outcome]]
) -> None:
    """Notifications reduce the stored tree as they come; that must not lose what the whole tree would know."""
    left: Future | Outcome = tree
    arrived: dict[int, Outcome] = {}
    for leaf, outcome in arrivals:
        arrived[leaf] = outcome
        assert not isinstance(left, Outcome)
        left = resolve(left, lambda known, leaf=leaf, outcome=outcome: outcome if known == leaf else None)  # type: ignore[misc]
        at_once = resolve(tree, arrived.get)  # type: ignore[arg-type]
        if isinstance(left, Outcome):
            assert isinstance(at_once, Outcome), "woken too early"
            return
        assert not isinstance(at_once, Outcome) or None in outcomes(tree, arrived), "woken too late"


def test_any_completed_is_undetermined_when_what_is_there_differs() -> None:
    race = Future([1, 2], combinator=Combinator.FIRST_COMPLETED)
    both = {1: Outcome.FAILURE, 2: Outcome.SUCCESS}
    assert resolve(race, both.get) is Outcome.UNDETERMINED  # type: ignore[arg-type]
    first_success = Future([3], nested=[race], combinator=Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED)
    assert resolve(first_success, both.get) is Outcome.UNDETERMINED, "else it would wait for 3 for ever"  # type: ignore[arg-type]


def test_signals_and_names_are_leaves_too() -> None:
    tree = Future([7], [7], ["seven"], [], Combinator.ALL_COMPLETED)
    left = resolve(tree, {-7: Outcome.SUCCESS}.get)  # type: ignore[arg-type]
    assert left == Future([7], [], ["seven"], [], Combinator.ALL_COMPLETED)
    assert resolve(left, {7: Outcome.SUCCESS, "seven": Outcome.FAILURE}.get) is Outcome.SUCCESS  # type: ignore


def test_leaves_are_found_at_any_depth() -> None:
    tree = Future(nested=[Future(nested=[Future([5])])])
    assert tree.has_leaves() and tree.awaits_any_of([5]) and not tree.awaits_any_of([4])
    assert not Future(nested=[Future(nested=[Future()])]).has_leaves()
