"""Steps with needs: order, faults, and what remains after each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import GraphError
from worker.graph import Graph, Step


def graph(**needs: tuple[str, ...]) -> Graph:
    return Graph(Step(name, name, needs=given) for name, given in needs.items())


@st.composite
def graphs(draw):
    """Any graph without a cycle: a step needs only earlier ones; then shuffled."""
    size = draw(st.integers(1, 12))
    steps = [
        Step(
            f"s{number}",
            "f",
            needs=tuple(draw(st.sets(st.sampled_from([f"s{n}" for n in range(number)])))) if number else (),
        )
        for number in range(size)
    ]
    return draw(st.permutations(steps))


@given(graphs())
def test_every_need_comes_first(steps):
    order = list(Graph(steps).steps)
    assert sorted(order) == sorted(step.name for step in steps)
    for step in steps:
        assert all(order.index(need) < order.index(step.name) for need in step.needs)


@given(graphs(), st.dictionaries(st.sampled_from([f"s{n}" for n in range(12)]), st.floats(0, 1e6)))
def test_what_remains_is_at_least_the_longest_chain(steps, cost):
    made = Graph(steps)
    remaining = made.remaining(cost)
    for step in steps:
        for need in step.needs:
            assert remaining[need] >= remaining[step.name]


def test_the_longest_remaining_path_is_measured_to_the_end():
    made = graph(a=(), b=("a",), c=("a",), d=("b", "c"), e=())
    assert made.remaining({"a": 1, "b": 10, "c": 2, "d": 5, "e": 12}) == {"a": 16, "b": 15, "c": 7, "d": 5, "e": 12}


def test_a_step_without_a_measurement_costs_the_mean_of_the_others():
    assert graph(a=(), b=("a",), c=()).remaining({"a": 2, "c": 4, "gone": 100}) == {"a": 5, "b": 3, "c": 4}


def test_without_any_measurement_the_longest_chain_goes_first():
    assert graph(a=(), b=("a",), c=("b",), d=()).remaining({}) == {"a": 3, "b": 2, "c": 1, "d": 1}


@pytest.mark.parametrize(
    ("needs", "told"),
    [
        ({}, "a graph needs at least one step"),
        ({"a": ("b",)}, "a: needs 'b', which is not a step of this job"),
        ({"a": ("a",)}, "needs form a cycle: a -> a"),
        ({"a": ("b",), "b": ("a",)}, "needs form a cycle: "),
    ],
)
def test_faults_are_named(needs, told):
    with pytest.raises(GraphError, match=told):
        graph(**needs)


def test_a_cycle_is_told_from_dependent_to_need():
    with pytest.raises(GraphError) as error:
        graph(a=("b",), b=("c",), c=("a",))
    (fault,) = error.value.faults
    names = fault.removeprefix("needs form a cycle: ").split(" -> ")
    needs = {"a": "b", "b": "c", "c": "a"}
    assert [needs[name] for name in names[:-1]] == names[1:]


def test_all_faults_are_told_at_once():
    with pytest.raises(GraphError) as error:
        graph(a=("x",), b=("y", "a"))
    assert len(error.value.faults) == 2


def test_tags_and_size():
    assert not graph(a=()).tagged()
    assert Graph([Step("a", "f", tags=("t",)), Step("b", "f")]).tagged()
    assert len(graph(a=(), b=())) == 2
    assert graph(a=(), b=("a",), c=("a", "b")).dependents == {"a": ("b", "c"), "b": ("c",), "c": ()}
