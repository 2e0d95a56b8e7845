"""The Grafana dashboard, made from the table of its panels: `python3 dev.py dashboard` writes deploy/grafana.json.

`$job` is one scrape job: the daemons, or an exporter. Both tell of the same events, so nothing is added up over two.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parent / "grafana.json"
WIDTH = 24  # Grafana's columns
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """One chart.

    Attributes:
        about: what it shows, and when it should worry.
        queries: each with the words of its legend.
        unit: as Grafana calls it.
        width: in columns.
        kind: of chart, as Grafana calls it.
        stacked: whether areas stand on each other.
    """

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False


def rate(series: str, by: str = "", labels: str = "") -> str:
    """A counter's increase per second, added up over the processes."""
    return f"sum by ({by}) (rate({series}{{{_chosen(labels)}}}[$__rate_interval]))"


def highest(series: str, by: str = "", labels: str = "") -> str:
    """A gauge of the whole database, which every process tells."""
    return f"max by ({by}) ({series}{{{_chosen(labels)}}})"


def total(series: str, by: str = "") -> str:
    """A gauge of one process, added up."""
    return f"sum by ({by}) ({series}{{{_chosen('')}}})"


def percentile(q: float, series: str, by: str = "le", labels: str = "") -> str:
    """Of a histogram."""
    return f"histogram_quantile({q}, {rate(series + '_bucket', by, labels)})"


def percentiles(series: str, labels: str = "") -> tuple[tuple[str, str], ...]:
    """The half, and the unlucky ones."""
    return tuple((percentile(q, series, labels=labels), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99))


def _chosen(labels: str) -> str:
    return 'job="$job"' + (f",{labels}" if labels else "")


TYPE = 'job_type=~"$job_type"'
PENDING = TYPE + ',status="pending"'
FAILED = TYPE + ',outcome="failed"'
ENDED = TYPE + ',outcome=~"completed|skipped|failed|cancelled"'

NOW = (
    Panel("Processes alive", "Daemons whose lease holds. None: nothing runs.",
          ((highest("worker_processes", labels='state="alive"'), "alive"),), width=4, kind="stat"),
    Panel("Oldest due", "How long the longest waiting due job has waited.",
          ((highest("worker_oldest_due_seconds", labels=TYPE), "oldest due"),), "s", 4, "stat"),
    Panel("Waiting", "Rows pending: due, scheduled for later, or behind their key.",
          ((f"sum({highest('worker_jobs', 'job_type', PENDING)})", "pending"),), width=4, kind="stat"),
    Panel("Ended a second", "Attempts that ended for good, of whatever verdict.",
          ((rate("worker_jobs_finished_total", labels=ENDED), "ended"),), "ops", 4, "stat"),
    Panel("Failed in the last hour", "Jobs that were given up.",
          ((f"sum(increase(worker_jobs_finished_total{{{_chosen(FAILED)}}}[1h]))", "failed"),),
          width=4, kind="stat"),
    Panel("Alerts", "Those of deploy/alerts.yml that fire.",
          (('count(ALERTS{alertname=~"Worker.+",alertstate="firing"}) or vector(0)', "firing"),), width=4, kind="stat"),
)  # fmt: skip

JOBS = (
    Panel("Throughput", "Attempts a second by their verdict.",
          ((rate("worker_jobs_finished_total", "outcome", TYPE), "{{outcome}}"),), "ops", stacked=True),
    Panel("Throughput by type", "Attempts that completed.",
          ((rate("worker_jobs_finished_total", "job_type", TYPE + ',outcome="completed"'), "{{job_type}}"),), "ops"),
    Panel("Failures by type", "Given up, and tried again.",
          ((rate("worker_jobs_finished_total", "job_type", FAILED), "{{job_type}} failed"),
           (rate("worker_jobs_finished_total", "job_type", TYPE + ',outcome="retried"'), "{{job_type}} retried")),
          "ops"),
    Panel("Wait", "From due to start.", percentiles("worker_job_wait_seconds", TYPE), "s"),
    Panel("Duration", "Of an attempt.", percentiles("worker_job_duration_seconds", TYPE), "s"),
    Panel("Duration by type", "p95 of an attempt.",
          ((percentile(0.95, "worker_job_duration_seconds", "job_type, le", TYPE), "{{job_type}}"),), "s"),
    Panel("Oldest due by type", "A line that climbs is a type that nobody runs, or not fast enough.",
          ((highest("worker_oldest_due_seconds", "job_type", TYPE), "{{job_type}}"),), "s"),
    Panel("Queue", "Rows pending and running, by type.",
          ((highest("worker_jobs", "job_type, status", TYPE), "{{job_type}} {{status}}"),)),
    Panel("Steps", "p95 of the ten longest steps.",
          ((f"topk(10, {percentile(0.95, 'worker_step_duration_seconds', 'job_type, step, le', TYPE)})",
            "{{job_type}} {{step}}"),), "s"),
)  # fmt: skip

PROCESSES = (
    Panel("Processes", "silent: the lease lapsed. dead: declared so within the hour. unrescued: dead, and jobs left.",
          ((highest("worker_processes", "state"), "{{state}}"),)),
    Panel("Running and slots", "All slots taken and jobs due: more daemons, or more concurrency. Not from an exporter.",
          ((total("worker_running"), "running"), (total("worker_slots"), "slots"))),
    Panel("Event loop", "How late it wakes, p99. Half a second: a handler blocks it. An exporter adds all daemons up.",
          ((percentile(0.99, "worker_loop_lag_seconds", "instance, le"), "{{instance}}"),), "s"),
    Panel("Claims", "Claim calls by what came of them.",
          ((rate("worker_claims_total", "result"), "{{result}}"),), "ops"),
    Panel("Lost claims", "Verdicts refused: the job was somebody else's by then. Around a rescue, one or two.",
          ((rate("worker_lost_claims_total"), "lost"),), "ops"),
    Panel("Rescues", "Jobs taken over from dead processes.",
          ((rate("worker_rescues_total"), "rescued"),), "ops"),
    Panel("Child processes", "Of context.to_process, by state, and those that died. Not from an exporter: the states.",
          ((total("worker_child_processes", "state"), "{{state}}"),
           (rate("worker_child_processes_died_total"), "died a second"))),
    Panel("Database errors", "By class of SQLSTATE: 08, 25, 28, 53, 57, 58, XX are the server's, others the jobs' own.",
          ((rate("worker_database_errors_total", "sqlstate_class"), "{{sqlstate_class}}"),), "ops"),
    Panel("Versions", "Two at once: a deploy is under way. Not from an exporter.",
          ((f"count by (version) (worker_build_info{{{_chosen('')}}})", "{{version}}"),)),
)  # fmt: skip

AROUND = (
    Panel("Outbound calls", "By type and result.",
          ((rate("worker_outbound_total", "job_type, result", TYPE), "{{job_type}} {{result}}"),), "ops"),
    Panel("Calls held back", "1 while nobody answers at the type's endpoint. Not from an exporter.",
          ((highest("worker_breaker_open", "job_type", TYPE), "{{job_type}}"),)),
    Panel("Schedules late", "How long the next run has been due and not fired; and how late those came that did, p95.",
          ((highest("worker_schedule_late_seconds", "schedule"), "{{schedule}} overdue"),
           (percentile(0.95, "worker_schedule_lateness_seconds", "schedule, le"), "{{schedule}} came")), "s"),
    Panel("Oldest transaction", "While it is open no vacuum cleans up behind the queue.",
          ((highest("worker_oldest_transaction_seconds"), "oldest"),), "s"),
    Panel("Dead rows", "What vacuum has not removed yet. Peaks are usual, a plateau is not.",
          ((highest("worker_table_dead_rows", "table"), "{{table}}"),)),
    Panel("Size", "Of the tables that grow with the jobs, and of their indexes.",
          ((highest("worker_table_bytes", "table"), "{{table}}"),
           (highest("worker_table_index_bytes", "table"), "{{table}} indexes")), "bytes"),
    Panel("Notification queue", "Share in use. When it is full, nobody's NOTIFY commits.",
          ((highest("worker_notification_queue_ratio"), "in use"),), "percentunit"),
    Panel("Notification round trip", "No line: rings are not heard, and jobs start by the poll. Not from an exporter.",
          ((highest("worker_listen_roundtrip_seconds", "instance"), "{{instance}}"),), "s"),
    Panel("Results", "Numbers of the last completed job, of types that declare gauges. Not from an exporter.",
          ((highest("worker_job_result", "job_type, name", TYPE), "{{job_type}} {{name}}"),)),
)  # fmt: skip

ROWS = {"Now": NOW, "Jobs": JOBS, "Daemons": PROCESSES, "Around": AROUND}


def dashboard() -> dict[str, Any]:
    """As Grafana 9 and newer import it."""
    return {
        "uid": "job-queue-worker",
        "title": "job-queue-worker",
        "description": "Made by `python3 dev.py dashboard`; change deploy/dashboard.py.",
        "tags": ["job-queue-worker"],
        "schemaVersion": 37,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_datasource(), _variable("job", "worker_oldest_transaction_seconds", many=False),
                                _variable("job_type", 'worker_jobs{job="$job"}', many=True)]},
        "annotations": {"list": [_alerts()]},
        "panels": list(_panels()),
    }  # fmt: skip


def _panels() -> Iterator[dict[str, Any]]:
    ids, top = count(1), 0
    for title, panels in ROWS.items():
        yield {"id": next(ids), "type": "row", "title": title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}}  # fmt: skip
        top, left, height = top + 1, 0, HEIGHT // 2 if panels[0].kind == "stat" else HEIGHT
        for panel in panels:
            if left + panel.width > WIDTH:
                top, left = top + height, 0
            yield _panel(panel, next(ids)) | {"gridPos": {"x": left, "y": top, "w": panel.width, "h": height}}
            left += panel.width
        top += height


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    custom = {"fillOpacity": 20 if panel.stacked else 0, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom if panel.kind != "stat" else {}},
                        "overrides": []},
        "targets": [{"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                    for at, (expression, legend) in enumerate(panel.queries)],
    }  # fmt: skip


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(name: str, series: str, many: bool) -> dict[str, Any]:
    return {
        "name": name, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1, "multi": many, "includeAll": many,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"} if many else {},
        "query": {"query": f"label_values({series}, {name})", "refId": name},
    }  # fmt: skip


def _alerts() -> dict[str, Any]:
    return {"name": "Alerts", "enable": True, "datasource": SOURCE, "iconColor": "red",
            "expr": 'ALERTS{alertname=~"Worker.+",alertstate="firing"}', "titleFormat": "{{alertname}}"}  # fmt: skip


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
