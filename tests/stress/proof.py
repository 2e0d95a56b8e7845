"""What is kept of runs: docs/proof.json, and the page docs/proof.md that is made from it and from the catalogue.

Each experiment has one row, that of its last run; so a run of some replaces theirs alone. A row belongs to the schema
that it was run on: once a migration is new or other, the rows are old, and a test says so.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.circumstances import commit, machine
from tests.stress.experiment import EXPERIMENTS, Report
from tests.stress.telling import figures, summary
from tests.support import ROOT

RESULTS = ROOT / "docs/proof.json"
PAGE = ROOT / "docs/proof.md"
CATALOGUE = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
LINES: Mapping[str, Mapping[str, Any]] = CATALOGUE["line"]
TOTALS = ("lost", "step_effects_beyond_one", "stale_accepted", "stale_refused", "duplicates", "recovery_p50_s",
          "recovery_p99_s", "stuck_max_s", "max_rss_mb")  # fmt: skip
HEAD = """# The proof

What was done to the daemon on purpose, and what came of it. `python3 dev.py stress --tier fast|nightly|soak --write`
writes this page; `tests/stress/` holds the experiments, and the checker that decides from what the database itself
wrote down. `tests/stress/test_catalogue.py` fails when a line of the suite has no test, when an experiment has no
result or one that does not hold, and when a result is older than the newest migration.
"""


def schema() -> str:
    """Of all migrations, by name and content."""
    files = sorted((ROOT / "sql/migrations").glob("*.sql"))
    return hashlib.sha256(b"".join(each.name.encode() + each.read_bytes() for each in files)).hexdigest()[:16]


def tier_of(id: str) -> str:
    """The tier whose result is kept: the longest but a soak, which is run by hand."""
    planned = EXPERIMENTS[id].planned
    return next(tier for tier in ("nightly", "fast", "soak") if tier in planned)


def kept() -> dict[str, Any]:
    """What was written last."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"runs": {}, "rows": {}}


def write(tier: str, seed: int, reports: Sequence[Report]) -> None:
    """Put a run beside the earlier ones, in place of theirs."""
    results = kept()
    told = summary(tier, seed, reports)
    name = f"{datetime.now(UTC):%Y-%m-%d %H:%M} {tier}, seed {seed}"
    results["runs"][name] = {
        "commit": commit(), "machine": machine(), "schema": schema(),
        **{total: told[total] for total in TOTALS},
    }  # fmt: skip
    for report in reports:
        if tier_of(report.id) == tier:
            verdict = "skipped" if report.skipped else "holds" if report.ok else "FAILS"
            results["rows"][report.id] = {
                "run": name, "planned": report.planned, "injected": report.injected, "verdict": verdict,
                "came": figures(report), "faults": report.faults,
            }  # fmt: skip
    used = {row["run"] for row in results["rows"].values()}
    results["runs"] = {name: run for name, run in results["runs"].items() if name in used}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


def page(results: Mapping[str, Any]) -> str:
    """The page, from the results and the catalogue."""
    runs = ["", "## Runs", ""]
    for name, run in sorted(results["runs"].items()):
        totals = ", ".join(f"{total} {run[total]}" for total in TOTALS)
        runs.append(f"- **{name}**: commit {run['commit']}, schema {run['schema']}, {run['machine']}.")
        runs.append(f"  {totals}.")
    rows = ["", "## Experiments", "", "| experiment | faults | came to | verdict | run |", "|---|---|---|---|---|"]
    for id, row in sorted(results["rows"].items(), key=lambda item: _number(item[0])):
        faults = f" {'; '.join(row['faults'])}" if row["faults"] else ""
        came = _cell(row["came"] + faults)
        rows.append(f"| {id} | {row['injected']} of {row['planned']} | {came} | {row['verdict']} | {row['run']} |")
    lines = ["", "## Line by line", "", "F is run at every push, N by night, S by hand. Files are below `tests/`.", "",
             "| line | tier | what | shown by |", "|---|---|---|---|"]  # fmt: skip
    for number, line in LINES.items():
        shown = ", ".join(each.removeprefix("tests/") for each in line.get("shown", []))
        lines.append(f"| {number} | {line['tier']} | {line['about']} | {_cell(shown or 'left: ' + line['left'])} |")
    open_lines = [
        f"- Line {number} ({line['about']}): {line['left']}." for number, line in LINES.items() if "left" in line
    ]
    skipped = [f"- {id}: {row['came']}." for id, row in results["rows"].items() if row["verdict"] == "skipped"]
    missing = [f"- {id}: not run on this schema." for id in EXPERIMENTS if id not in results["rows"]]
    uncovered = [
        "",
        "## What is not covered",
        "",
        *(f"- {each}" for each in CATALOGUE["uncovered"]),
        *open_lines,
        *skipped,
        *missing,
    ]
    return "\n".join([HEAD.rstrip("\n"), *runs, *rows, *lines, *uncovered]) + "\n"


def _number(id: str) -> tuple[int, str]:
    number, _, name = id.partition("-")
    return int(number), name


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
