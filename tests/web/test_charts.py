"""Small charts of what daemons counted."""

from datetime import UTC, datetime, timedelta
from typing import Any

from worker.web.pages import charts

NOW = datetime(2026, 11, 22, 12, 2, 30, tzinfo=UTC)
SHOWN = charts.SPANS[2]


def row(
    minutes: int, completed: int = 0, failed: int = 0, p50: float | None = None, p95: float | None = None
) -> dict[str, Any]:
    at = datetime(2026, 11, 22, 12, tzinfo=UTC) - timedelta(minutes=minutes)
    return {"at": at, "completed": completed, "failed": failed, "again": 0, "other": 0,
            "wait_p50": p50, "wait_p95": p95, "run_p50": p50, "run_p95": p95}  # fmt: skip


def test_spans_end_with_the_one_that_is_open() -> None:
    slots = SHOWN.slots(NOW)
    assert (len(slots), slots[-1], slots[0]) == (
        25,
        NOW.replace(minute=0, second=0),
        NOW.replace(hour=10, minute=0, second=0),
    )


def test_a_line_breaks_where_nothing_is_known() -> None:
    slots = SHOWN.slots(NOW)
    made = charts.line([row(60, p50=1, p95=2), row(55, p50=1, p95=4), row(10, p50=1, p95=3)], "wait", slots)
    assert made is not None
    assert (len(made.lines), len(made.areas), len(made.dots)) == (1, 1, 1)
    assert (made.last_p50, made.last_p95) == (1, 3)
    assert made.told == "wait p50 1 s, p95 3 s lately; at most 4 s"
    heights = [float(each.split(",")[1]) for each in " ".join((*made.lines, *made.areas)).split()]
    assert all(0 <= height <= charts.HEIGHT for height in heights)
    assert charts.line([row(60, completed=3)], "wait", slots) is None
    assert charts.line([row(0, p50=0, p95=0)], "run", slots) is not None


def test_columns_are_stacked_from_the_ground_and_the_fullest_is_whole() -> None:
    slots = SHOWN.slots(NOW)
    made, most = charts.columns([row(5, 6, 2), row(5, 2), row(0, 1)], slots)
    assert most == 10
    assert [part[0] for part in made[0].parts] == ["good", "bad"]
    assert made[0].parts[-1][1] == 0.0
    assert made[0].told == "11:55 UTC: 8 completed, 2 failed"
    assert charts.columns([], slots) == ([], 0)
    assert charts.totals([row(5, 6, 2), row(0, 1)]) == {"completed": 7, "other": 0, "again": 0, "failed": 2}
