"""Every measurement once, as small as it gets: it ends, and tells what its goal speaks of. No figure is judged."""

from collections.abc import Iterator

import pytest

from bench import backlog, enqueue, graph, latency, memory, series, workers
from bench.flow import FAST
from bench.ground import Ground, ground
from bench.names import NAMES

pytestmark = pytest.mark.timeout(300)  # where others keep the cores busy


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with ground(scale=0.0005) as made:
        yield made


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what does not shrink with the scale: processes, rounds, and kinds of the same."""
    for module, name, value in (
        (backlog, "LAID", ("paused",)), (backlog, "ROUNDS", 1),
        (enqueue, "WRITERS", 4), (enqueue, "WRITES", 5), (enqueue, "TURNS", 1),
        (graph, "CONNECTIONS", (2,)), (graph, "ROUNDS", 1), (memory, "ROUNDS", 2), (memory, "SETTLED_SECONDS", 0.0),
        (latency, "IDLE_SECONDS", 1.0), (series, "BATCHES", (5,)), (series, "RAW_BATCHES", (5,)),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"drain_5ms", "workers"}))
async def test_it_measures_what_its_goal_speaks_of(here: Ground, name: str) -> None:
    figure = await NAMES[name](here, 1)
    assert figure.name == name
    assert figure.holds is not None, figure.sentence()


async def test_two_processes_share_a_queue_and_two_types(here: Ground) -> None:
    """The parts of `workers`, which starts dozens of processes; `drain_5ms` is `drain` with another handler."""
    assert await workers.together(here, 2, FAST) > 0
    assert 0 < await workers.share(here) <= 1


async def test_a_plot_has_points(here: Ground) -> None:
    """The other two are measured as `pickup` and `backlog` are."""
    lines = await series.batch_size(here)
    assert {name: [x for x, _ in points] for name, points in lines.items()} == {"raw SQL": [5], "worker": [5]}
