"""What is kept of the comparison: docs/peers-measured.json, and docs/performance-peers.md, made from it alone."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bench.circumstances import machine
from bench.figure import shown
from bench.ground import ROOT
from bench.peers.catalogue import catalogue
from bench.peers.figure import BEYOND, OURS, PeerFigure

RESULTS = ROOT / "docs/peers-measured.json"
PAGE = ROOT / "docs/performance-peers.md"
TITLE = "# Beside other queues on Postgres\n"
TRIAL = """**What stands here is a trial**, with a part of the jobs and for the working of the command: it does not say
which queue is faster. What was going on beside it is told below.
"""
HEAD = """`python3 dev.py bench --peers --write` installs the queues in the user's cache, measures them and writes this
page; `bench/peers/` holds the adapters, settings and versions.

- For each queue raw SQL, ours and the queue were measured one right after the other, on the same server, in fresh
  databases: fsync and synchronous_commit on. **Only the ratio tells something about another machine.**
- *raw* claims by 500 in two lanes and keeps every row, with no feature of a queue; its single enqueue is a bare INSERT,
  its bulk enqueue COPY. Ours keeps every row too; Graphile Worker deletes its rows, PgQueuer replaces them by a line
  in a log.
- Each queue runs in one process, in its makers' settings for throughput, and the same ones in every column.
"""
TABLES: Mapping[str, Mapping[str, str]] = {
    "Jobs a second (ratio to raw SQL of the same run)": {
        "drain": "drain", "enqueue": "enqueue one by one", "enqueue_many": "enqueue in bulk",
    },
    "Latency in ms and processor time (ratio to raw SQL of the same run)": {
        "pickup_p50": "idle pick-up p50", "pickup_p99": "idle pick-up p99",
        "sustained_p50": "500 jobs/s p50", "sustained_p99": "500 jobs/s p99",
        "sustained_cpu": "CPU s per 1,000 jobs, worker + backends",
    },
    "What a drained job costs, and the end of a worker": {
        "drain_worker_cpu": "worker µs a job", "drain_postgres_cpu": "Postgres µs a job", "drain_memory": "worker MB",
        "recovery": "kill -9 → 100 jobs begun again, s",
    },
}  # fmt: skip
MORE_IS_BETTER = ("drain", "enqueue", "enqueue_many")
LESS_IS_BETTER = ("pickup_p50", "pickup_p99", "sustained_p99", "sustained_cpu", "recovery")


def write(figures: Sequence[PeerFigure], missing: Mapping[str, str], scale: float, note: str) -> None:
    """Keep a run; of the earlier ones what it did not measure again. Make the page anew."""
    name = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    run = {"machine": machine(), "load": round(os.getloadavg()[2], 1), "scale": scale, "note": note,
           "missing": dict(missing)}  # fmt: skip
    results = merged(kept(), name, run, [each.as_dict() for each in figures])
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(results), encoding="utf-8")


def kept() -> dict[str, Any]:
    """What was written last."""
    if not RESULTS.exists():
        return {"runs": {}, "figures": []}
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def merged(
    results: Mapping[str, Any], name: str, run: Mapping[str, Any], figures: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The results with this run in place of what they had of its queues."""
    again = {each["peer"] for each in figures}
    stay = [each for each in results["figures"] if each["peer"] not in again]
    order = list(catalogue())
    both = sorted([*stay, *({**each, "run": name} for each in figures)], key=lambda each: order.index(each["peer"]))
    used = {each["run"] for each in both}
    return {"runs": {at: each for at, each in {**results["runs"], name: run}.items() if at in used}, "figures": both}


def page(results: Mapping[str, Any]) -> str:
    """The page, from the results."""
    figures = results["figures"]
    runs = (line for at, run in sorted(results["runs"].items()) for line in _run(at, run))
    trial = [TRIAL] if any(run["scale"] != 1 for run in results["runs"].values()) else []
    return "\n".join([TITLE, *trial, HEAD, *runs, *tables(figures), *_ahead(figures), *_settings(figures)]) + "\n"


def _run(at: str, run: Mapping[str, Any]) -> Iterator[str]:
    trial = "" if run["scale"] == 1 else f" **A trial** at {run['scale']:g} of all counts: its figures mean little."
    note = f" {run['note']}" if run["note"] else ""
    load = f"load average of the 15 minutes before its end {run['load']}"
    yield f"- **{at}** (UTC): {run['machine']}; {load}.{trial}{note}"
    for name, why in run["missing"].items():
        yield f"  Left out: {title(name)}: {why}."


def tables(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Queues down, measures across."""
    by_peer = _by_peer(figures)
    for head, columns in TABLES.items():
        yield from (
            "",
            f"## {head}",
            "",
            f"| queue | {' | '.join(columns.values())} |",
            f"|---|{'---|' * len(columns)}",
        )
        for peer, own in by_peer.items():
            yield f"| {title(peer)} | {' | '.join(_cell(own[name]) for name in columns)} |"


def _by_peer(figures: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for each in figures:
        found.setdefault(each["peer"], {})[each["name"]] = each
    return found


def _cell(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "> 60" if figure["note"] == BEYOND else figure["note"] or "–"
    ratio = f" ({shown(figure['ratio'])})" if figure["ratio"] is not None else ""
    return f"{shown(figure['value'])}{ratio}"


def _ahead(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How many times better ours is: above 1 is ahead, whatever the unit."""
    names = (*MORE_IS_BETTER, *LESS_IS_BETTER)
    yield from ("", "## Ours against each: how many times better, in the same runs", "")
    yield from (f"| queue | {' | '.join(names)} |", f"|---|{'---|' * len(names)}")
    for peer, own in _by_peer(figures).items():
        if peer != OURS:
            yield f"| {title(peer)} | {' | '.join(better(own[name]) for name in names)} |"


def better(figure: Mapping[str, Any]) -> str:
    """Ours against it, turned so that more is better."""
    if figure["note"] == BEYOND and figure["ours"]:
        return f"> {shown(60 / figure['ours'])}"
    if not figure["ours_ratio"]:
        return "–"
    return shown(figure["ours_ratio"] if figure["name"] in MORE_IS_BETTER else 1 / figure["ours_ratio"])


def _settings(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from (
        "",
        "## Versions and settings",
        "",
        "| queue | version | jobs to drain | settings | run |",
        "|---|---|---|---|---|",
    )
    for peer, own in _by_peer(figures).items():
        figure = own["drain"]
        settings = ", ".join(f"{name} {value}" for name, value in figure["settings"].items())
        jobs = catalogue()[peer].jobs if peer in catalogue() else 0
        yield f"| {title(peer)} | {figure['version']} | {jobs:,} | {settings} | {figure['run']} |"


def title(peer: str) -> str:
    """Its name as people write it."""
    entry = catalogue().get(peer)
    return (entry.title if entry else "") or peer
