"""What the doctor makes of counts and of ways to a database, without either."""

import pytest

from worker.check.capacity import judged as capacity
from worker.check.clock import judged as clock
from worker.check.pooler import judged as pooler
from worker.way import Pooler


@pytest.mark.parametrize(
    ("steps", "most", "used", "alive", "code"),
    [(8, 97, 3, 0, "connections"), (8, 97, 90, 0, "connections.left"), (100, 97, 0, 0, "connections.most"),
     (8, 97, 3, 5, "connections"), (8, 97, 3, 6, "connections.left")],
)  # fmt: skip
def test_connections_against_what_the_server_has(steps: int, most: int, used: int, alive: int, code: str) -> None:
    assert capacity(steps, most, used, alive).code == code


@pytest.mark.parametrize(
    ("ahead", "unsure", "code"), [(0.1, 0.01, "clock"), (-7, 0.1, "clock.skew"), (7, 3, "clock"), (60, 3, "clock.skew")]
)
def test_clocks(ahead: float, unsure: float, code: str) -> None:
    found = clock(ahead, unsure, 5)
    assert (found.code, ("behind" in found.said) == (ahead < 0)) == (code, True)


NONE, SESSION, TRANSACTION = Pooler.NONE, Pooler.SESSION, Pooler.TRANSACTION


@pytest.mark.parametrize(
    ("url", "direct", "graphs", "level"),
    [
        (NONE, None, ["a"], "ok"),
        (NONE, NONE, ["a"], "ok"),
        (TRANSACTION, None, ["a"], "fault"),
        (TRANSACTION, None, [], "warning"),
        (TRANSACTION, NONE, ["a"], "info"),
        (TRANSACTION, SESSION, ["a"], "info"),
        (NONE, TRANSACTION, ["a"], "fault"),
        (SESSION, None, ["a"], "info"),
    ],
)
def test_poolers_by_what_is_before_the_addresses(
    url: Pooler, direct: Pooler | None, graphs: list[str], level: str
) -> None:
    found = pooler(url, direct, graphs)
    assert found.level == level
    assert ("direct_url" in str(found.cure)) == (level in ("fault", "warning"))
