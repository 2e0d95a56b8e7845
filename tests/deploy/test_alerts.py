"""The alert rules: each explained, each shown to fire and to keep quiet, each about series that there are."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.dashboard import ROWS
from tests.deploy.monitor import RULES, SCRAPES, rules, seconds
from tests.deploy.plain import read_yaml
from tests.deploy.watched import default_lease
from tests.support import ROOT
from worker.exporter import SAMPLE_EVERY, Exporter
from worker.metrics import Metrics

OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
CASES = ROOT / "deploy" / "alerts_test.yml"
NAMES = [rule["alert"] for rule in rules()]
TWO_MINUTES = 120.0
SCRAPED = {"job", "instance"}  # labels that Prometheus adds
PARTS = ["Means", "See", "Cure", "Do not"]

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian: prometheus)")


def series() -> dict[str, set[str]]:
    """Names as they are scraped, of daemons and of the exporter, each with its labels."""
    found: dict[str, set[str]] = {}
    for name, kind, labels in re.findall(r"^\| `(worker_\w+)` \| (\w+) \| (.*?) \|", METRICS, re.MULTILINE):
        ends = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        for end in ends:
            found[name + end] = {*re.findall(r"`(\w+)`", labels), *(["le"] if end == "_bucket" else [])}
    return found


def unknown(expression: str) -> list[str]:
    """What an expression asks of a series that has no such label, or is none."""
    known, wrong = series(), []
    for name, matchers in re.findall(r"\b(worker_\w+)(?:\{([^}]*)\})?", expression):
        named = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        if name not in known or named - known[name] - SCRAPED:
            wrong.append(f"{name}{{{matchers}}}")
    return wrong


def cases() -> list[dict[str, Any]]:
    tests = read_yaml(CASES.read_text(encoding="utf-8"))["tests"]
    return [case for test in tests for case in test["alert_rule_test"]]


def section(alert: str) -> str:
    """What the page says about an alert."""
    found = re.search(rf"(?ms)^### {alert}\n(.*?)(?=^##|\Z)", OPERATIONS)
    return found[1] if found else ""


def promtool(*arguments: str) -> str:
    """What is wrong, nothing where all is well."""
    command = ["promtool", *arguments]
    ended = subprocess.run(command, cwd=RULES.parent, capture_output=True, text=True, check=False, timeout=60)
    return ended.stdout + ended.stderr if ended.returncode else ""


def test_the_page_of_metrics_has_the_series_of_daemon_and_exporter_and_no_others() -> None:
    registries = Metrics().registry, Exporter("postgresql://unused", {}).registry
    names = {family.name for registry in registries for family in registry.collect()}
    assert {re.sub(r"_(total|info|bucket|count|sum)$", "", name) for name in series()} == names


def test_each_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert [name for name in NAMES if not name.startswith("Worker")] == []


@pytest.mark.parametrize("rule", rules(), ids=NAMES)
class TestRule:
    def test_is_whole(self, rule: dict[str, Any]) -> None:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"

    def test_has_a_section_that_says_all_a_tired_person_needs(self, rule: dict[str, Any]) -> None:
        assert re.findall(r"^\*\*(.+?)\.\*\*", section(rule["alert"]), re.MULTILINE) == PARTS

    def test_fires_and_keeps_quiet_in_a_case(self, rule: dict[str, Any]) -> None:
        fires = {bool(case["exp_alerts"]) for case in cases() if case["alertname"] == rule["alert"]}
        assert fires == {True, False}

    def test_asks_for_series_and_labels_that_there_are(self, rule: dict[str, Any]) -> None:
        assert unknown(rule["expr"]) == []

    def test_adds_up_no_two_scrape_jobs(self, rule: dict[str, Any]) -> None:
        grouped = re.findall(r"\b(?:sum|max|count)\b(?: by \(([^)]*)\))?", rule["expr"])
        assert [each for each in grouped if "job" not in each.split(", ")] == []


def test_the_page_explains_no_alert_that_there_is_not() -> None:
    assert re.findall(r"^### (Worker\w+)", OPERATIONS, re.MULTILINE) == NAMES


def test_every_case_is_about_an_alert() -> None:
    assert {case["alertname"] for case in cases()} == set(NAMES)


def test_an_unknown_series_or_label_would_be_seen() -> None:
    assert unknown('rate(worker_jobs_finished{outcome="failed"}[5m])') == ['worker_jobs_finished{outcome="failed"}']
    assert unknown('worker_slots{job="x",state="alive"}') == ['worker_slots{job="x",state="alive"}']
    assert unknown('worker_build_info{job="x",version="1"} + worker_job_wait_seconds_bucket{le="1"}') == []


@pytest.mark.parametrize("panel", [panel for row in ROWS.values() for panel in row], ids=lambda panel: panel.title)
def test_a_panel_asks_for_series_and_labels_that_there_are(panel: Any) -> None:
    assert [fault for expression, _ in panel.queries for fault in unknown(expression)] == []


@needs_promtool
def test_promtool_finds_no_fault_in_the_rules() -> None:
    assert promtool("check", "rules", RULES.name) == ""


@needs_promtool
def test_promtool_finds_that_every_case_holds() -> None:
    assert promtool("test", "rules", CASES.name) == ""


@needs_promtool
def test_promtool_would_see_a_case_that_does_not_hold(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    wrong = tmp_path / CASES.name
    first = "  - name".join(CASES.read_text(encoding="utf-8").split("  - name")[:2])
    wrong.write_text(first.replace("2x8 0x12", "2x20"), encoding="utf-8")
    assert "WorkerNoProcess" in promtool("test", "rules", str(wrong))


def test_the_shipped_intervals_add_up_to_less_than_two_minutes() -> None:
    (alert,) = [rule for rule in rules() if rule["alert"] == "WorkerNoProcess"]
    patience = seconds(f"for: {alert['for']}", "for")
    shipped = SCRAPES.read_text(encoding="utf-8"), RULES.read_text(encoding="utf-8")
    scrape, look = seconds(shipped[0], "scrape_interval"), seconds(shipped[1], "interval")
    assert scrape + look + patience < TWO_MINUTES
    assert default_lease() + 1.1 * SAMPLE_EVERY + scrape + look + patience < TWO_MINUTES
