"""The series of a real exporter: those of the daemons, bounded, and in order for whoever reads them."""

import asyncio
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.exporters import FINISHED, add
from tests.heart import declare
from tests.support import ROOT
from worker.series import COUNTED, WAIT


async def test_a_cardinality_bomb(connection, exporters):
    """100,000 types in rows, 200 declared ones with counts, and what no daemon says: 500 series that a parser reads."""
    types = [f"type_{n:03d}" for n in range(200)]
    hostile = ['a"b', "a\nb", "a\\b", "é\u202e", "{}", "# HELP x y", ""]
    await declare(connection, *({"name": name} for name in types))
    await connection.execute("""
        set session_replication_role = replica;  -- no triggers: each would look for each type
        insert into worker.job_queue
          (job_type, queued, priority, max_attempts, scheduled_at, correlation_id, created_at)
        select 'stranger_' || n, true, 100, 5, now(), 'x', now() from generate_series(1, 100000) n;
        set session_replication_role = origin""")
    outcomes = [(FINISHED, {"job_type": name, "outcome": f"o{n}"}, 1) for name in types for n in range(9)]
    waits, runs = (f"worker_job_{name}_seconds_bucket" for name in ("wait", "duration"))
    await add(connection, *outcomes)
    await add(connection, *((series, {"job_type": name, "le": "0.5"}, 1) for series in (waits, runs) for name in types))
    await add(connection, *((FINISHED, {"job_type": name, "outcome": name}, 1) for name in hostile))
    await add(connection, *((waits, {"job_type": name, "step": name, "le": name}, 1) for name in hostile))
    await add(connection, *(("worker_database_errors_total", {"sqlstate_class": f"{n:02d}"}, 1) for n in range(100)))
    exporter = exporters()
    shown = await exporter.shows("worker_exporter_database_up")
    assert len({key for key in shown if not key[0].endswith(("_bucket", "_sum"))}) <= 500
    assert shown["worker_exporter_series_left_out",] == 600 - 245
    assert shown["worker_jobs", "other", "pending"] == 100_000
    assert sum(value for key, value in shown.items() if key[0] == FINISHED) == len(outcomes) + len(hostile)
    assert sum(value for key, value in shown.items() if key[0] == waits.replace("bucket", "count")) == 200 + len(
        hostile
    )
    assert not [key for key in shown if "stranger" in str(key) or any(each and each in key for each in hostile)]


async def test_what_another_release_tells_is_no_trouble(connection, exporters):
    await declare(connection, {"name": "echo"})
    await add(
        connection,
        ("worker_invented_total", {"x": "y"}, 1),
        ("worker_rescues_total", {"more": "labels"}, 2),
        (FINISHED, {"job_type": "echo"}, 3),
        ("worker_job_wait_seconds_bucket", {"job_type": "echo", "le": "0.3"}, 4),
        ("worker_job_wait_seconds_bucket", {"job_type": "echo"}, 5),
    )  # fmt: skip
    exporter = exporters()
    shown = await exporter.shows("worker_rescues_total", value=2.0)
    assert shown[FINISHED, "echo", "other"] == 3
    assert [shown["worker_job_wait_seconds_bucket", "echo", le] for le in ("0.25", "0.5", "+Inf")] == [0, 4, 9]
    assert "invented" not in str(shown)


async def test_names_types_and_labels_are_the_daemons(connection, exporters):
    """Every family that a daemon counts, and no other: so rules fit both."""
    await declare(connection, {"name": "echo"})
    exporter = exporters()
    await exporter.shows("worker_exporter_database_up")
    answer = exporter.ask()
    assert answer is not None
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {name for name, family in families.items() if family.type != "gauge"} == set(COUNTED)
    assert families["worker_jobs_finished"].type == "counter"
    assert families["worker_loop_lag_seconds"].type == "histogram"
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert {name for name in families if f"`{name}" not in page} == set()
    bounds = {sample.labels["le"] for sample in families["worker_loop_lag_seconds"].samples if "le" in sample.labels}
    assert len(bounds) == 13
    assert len(WAIT) == 18


async def test_promtool_finds_no_fault(connection, exporters):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    await declare(connection, {"name": "echo"})
    await add(connection, ("worker_job_wait_seconds_bucket", {"job_type": "echo", "le": "0.5"}, 1))
    exporter = exporters()
    await exporter.shows("worker_exporter_database_up")
    command = [promtool, "check", "metrics"]
    given = exporter.ask().content
    checked = await asyncio.to_thread(subprocess.run, command, input=given, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
