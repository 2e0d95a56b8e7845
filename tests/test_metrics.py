"""The series of the contract, each once, with bounded labels."""

import math
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from worker.config import load
from worker.metrics import Metrics

# name in the exposition → type and labels
CONTRACT = {
    "worker_jobs_finished": ("counter", ("job_type", "outcome")),
    "worker_job_duration_seconds": ("histogram", ("job_type",)),
    "worker_job_wait_seconds": ("histogram", ("job_type",)),
    "worker_step_duration_seconds": ("histogram", ("job_type", "step")),
    "worker_jobs": ("gauge", ("job_type", "status")),
    "worker_oldest_due_seconds": ("gauge", ("job_type",)),
    "worker_slots": ("gauge", ()),
    "worker_running": ("gauge", ()),
    "worker_claims": ("counter", ("result",)),
    "worker_lost_claims": ("counter", ()),
    "worker_rescues": ("counter", ()),
    "worker_outbound": ("counter", ("job_type", "result")),
    "worker_breaker_open": ("gauge", ("job_type",)),
    "worker_database_errors": ("counter", ("sqlstate_class",)),
    "worker_listen_roundtrip_seconds": ("gauge", ()),
    "worker_loop_lag_seconds": ("histogram", ()),
    "worker_child_processes": ("gauge", ("state",)),
    "worker_child_processes_died": ("counter", ()),
    "worker_oldest_transaction_seconds": ("gauge", ()),
    "worker_processes": ("gauge", ("state",)),
    "worker_notification_queue_ratio": ("gauge", ()),
    "worker_schedule_late_seconds": ("gauge", ("schedule",)),
    "worker_schedule_failures": ("gauge", ("schedule",)),
    "worker_table_rows": ("gauge", ("table",)),
    "worker_table_dead_rows": ("gauge", ("table",)),
    "worker_table_bytes": ("gauge", ("table",)),
    "worker_table_index_bytes": ("gauge", ("table",)),
    "worker_job_result": ("gauge", ("job_type", "name")),
    "worker_job_result_age_seconds": ("gauge", ("job_type",)),
    "worker_schedule_lateness_seconds": ("histogram", ("schedule",)),
    "worker_build": ("info", ()),
}


def test_the_series_are_those_of_the_contract() -> None:
    found = {family.name: family.type for family in Metrics().registry.collect()}
    assert found == {name: kind for name, (kind, _) in CONTRACT.items()}


@pytest.mark.parametrize("name", CONTRACT)
def test_labels_and_help(name: str) -> None:
    metrics = Metrics()
    [series] = [one for one in vars(metrics).values() if getattr(one, "_name", "") == name] or [None]
    [family] = [family for family in metrics.registry.collect() if family.name == name]
    assert family.documentation
    assert series is None or series._labelnames == CONTRACT[name][1]


def test_the_page_lists_every_series() -> None:
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(worker_\w+)` \| (\w+) \| (.*?) \| .+ \|$", page, re.MULTILINE)
    ends = {"counter": "_total", "info": "_info"}
    here = {row for row in rows if not row[0].startswith("worker_exporter_")}
    assert {(name, kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in here} == {
        (name + ends.get(kind, ""), kind, labels or (("version", "environment", "python") if kind == "info" else ()))
        for name, (kind, labels) in CONTRACT.items()
    }


def test_unmeasured_is_not_zero() -> None:
    registry = Metrics().registry
    for name in ("worker_listen_roundtrip_seconds", "worker_oldest_transaction_seconds"):
        assert math.isnan(registry.get_sample_value(name) or 0)


def test_what_alerts_ask_about_stands_at_zero_before_the_first_event() -> None:
    registry = Metrics({"stats": []}, schedules=["nightly"]).registry
    failed = {"job_type": "stats", "outcome": "failed"}
    assert registry.get_sample_value("worker_jobs_finished_total", failed) == 0
    assert registry.get_sample_value("worker_schedule_lateness_seconds_count", {"schedule": "nightly"}) == 0
    assert registry.get_sample_value("worker_database_errors_total", {"sqlstate_class": "XX"}) == 0


def test_each_has_a_registry_of_its_own() -> None:
    first, second = Metrics(), Metrics()
    first.rescues.inc()
    assert first.registry.get_sample_value("worker_rescues_total") == 1
    assert second.registry.get_sample_value("worker_rescues_total") == 0


def test_labels_come_from_what_is_declared() -> None:
    metrics = Metrics({"stats": ["all_time"], "mail": []}, schedules=["nightly"])
    assert [metrics.label(name) for name in ("stats", "mail", "Stats", "", "x\ny")] == ["stats", "mail", *["other"] * 3]
    assert metrics.step_label("stats", "all_time") == "all_time"
    assert {metrics.step_label("stats", "x"), metrics.step_label("mail", "all_time"), metrics.step_label("x", "y")} == {
        "other"
    }
    assert (metrics.schedule_label("nightly"), metrics.schedule_label("x")) == ("nightly", "other")


@pytest.mark.parametrize(
    ("sqlstate", "label"),
    [
        ("40001", "40"),
        ("57014", "57"),
        ("P0001", "P0"),
        ("WK003", "WK"),
        ("ZZ001", "other"),
        ("", "other"),
        (None, "other"),
    ],
)
def test_sqlstate(sqlstate: str | None, label: str) -> None:
    assert Metrics.sqlstate_label(sqlstate) == label


def test_of_a_configuration() -> None:
    config = load(Path(__file__).parents[1] / "worker.toml", {"DATABASE_URL": "postgresql://h/d"})
    metrics = Metrics.of(config, "1.2.3")
    assert metrics.label("stats_update") == "stats_update"
    assert metrics.step_label("stats_update", "hall_of_fame") == "hall_of_fame"
    labels = {"version": "1.2.3", "environment": "development"}
    [family] = [family for family in metrics.registry.collect() if family.name == "worker_build"]
    assert labels.items() <= family.samples[0].labels.items()


def test_exposition_can_be_parsed() -> None:
    metrics = Metrics({"stats": ["all_time"]})
    metrics.finished.labels(metrics.label("stats"), "completed").inc()
    metrics.duration.labels(metrics.label('x"\n')).observe(0.2)
    text = generate_latest(metrics.registry).decode()
    samples = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert {"worker_jobs_finished_total", "worker_job_duration_seconds_bucket", "worker_build_info"} <= samples
    assert not [name for name in samples if name.endswith("_created")]


SAMPLE = {
    "oldest_transaction": 1.0,
    "processes": {"alive": 1, "silent": 0, "dead": 0, "unrescued": 0},
    "notification_queue": 0.0,
    "schedules": [{"name": "nobody's", "late": 1.0, "failures": 0}, {"name": "x", "late": None, "failures": 1}],
    "tables": [{"name": "job_queue", "rows": 1, "dead": 1, "bytes": 8192, "index_bytes": 8192}],
}
HOSTILE = ['a"b', "a\nb", "a\\b", "a\x00b", "é\u202e", "\ud800", "{}", "# HELP x y", "a" * 400_000, ""]


def touch(metrics: Metrics, job_type: str, word: str) -> None:
    """Everything that a job of this type, and whatever it is about, can leave in the series."""
    label = metrics.label(job_type)
    metrics.finished.labels(label, "completed").inc()
    metrics.duration.labels(label).observe(0.1)
    metrics.wait.labels(label).observe(0.1)
    metrics.step_duration.labels(label, metrics.step_label(job_type, word)).observe(0.1)
    metrics.lateness.labels(metrics.schedule_label(word)).observe(0.1)
    metrics.outbound.labels(label, "failed").inc()
    metrics.breaker.labels(label).set(1)
    metrics.database_errors.labels(metrics.sqlstate_label(word)).inc()


def test_rows_make_no_series_whatever_they_name() -> None:
    """100,000 types and tenants, hostile ones among them, against the shipped configuration."""
    config = load(Path(__file__).parents[1] / "worker.toml", {"DATABASE_URL": "postgresql://h/d"})
    metrics = Metrics.of(config, "1")
    for step in config.job["stats_update"].steps or ():
        touch(metrics, "stats_update", step)
    for name in HOSTILE:
        touch(metrics, name, "hall_of_fame")
        touch(metrics, name, name)
    row = {"pending": 1, "running": 1, "oldest_due": 1.0}
    metrics.sampled(SAMPLE | {"types": [{"job_type": name, **row} for name in ("stats_update", *HOSTILE)]})
    before = generate_latest(metrics.registry)
    for number in range(100_000):
        touch(metrics, f"type_{number}", f"{number:05d}")
    metrics.sampled(SAMPLE | {"types": [{"job_type": f"type_{number}", **row} for number in range(100_000)]})
    text = generate_latest(metrics.registry).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len(samples) <= 500
    assert len(text) < 100_000
    allowed = {"stats_update", "other"}
    assert {sample.labels["job_type"] for sample in samples if "job_type" in sample.labels} == allowed
    assert len(samples) - before.count(b"\nworker_") < 40  # classes of SQLSTATE, of which there are so many
