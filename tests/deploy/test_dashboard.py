"""The Grafana dashboard: made from its table, whole, and nothing lies on anything else."""

import json
import re
from itertools import combinations
from typing import Any

import pytest

from deploy.dashboard import FILE, WIDTH, dashboard, text

PANELS: list[dict[str, Any]] = dashboard()["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]


def test_the_file_is_made_from_the_table() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "python3 dev.py dashboard"
    assert json.loads(text()) == dashboard()


def test_each_has_a_number_and_a_title_of_its_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_asks_one_scrape_job(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert 'job="$job"' in target["expr"] or "ALERTS" in target["expr"]


def test_what_one_looks_for_first_is_there() -> None:
    wanted = """Throughput, Failures by type, Wait, Duration, Oldest due, Running and slots, Lost claims, Rescues,
        Outbound calls, Event loop, Oldest transaction, Schedules late, Steps, Processes"""
    assert set(re.split(r",\s+", wanted)) - {panel["title"] for panel in PANELS} == set()


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}


def test_no_panel_lies_on_another_or_beyond_the_edge() -> None:
    assert all(x < WIDTH for panel in PANELS for x, _ in cells(panel))
    assert [(one["title"], other["title"]) for one, other in combinations(PANELS, 2) if cells(one) & cells(other)] == []
