"""What `reconcile` says to people: the lines of a comparison, and the three lists of an analysis."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.jobs.reconcile import Report

LISTS = {
    "competitions": "select * from league.largest_competitions(20)",
    "progress": "select * from league.latest_progress(10)",
    "completion": "select * from league.best_completion(10)",
}
_TITLES = {
    "competitions": "📊 Top 20 competitions by teams",
    "progress": "📊 Last 10 records of competition_progress",
    "completion": "📊 Top 10 competitions by completed seasons",
}
_COLUMNS = {
    "competitions": ("competition_id", " teams", " seasons", "latest"),
    "progress": ("competition_id", "status", " seasons_discovered", "worker_id", "completed_at", "error_message"),
    "completion": ("competition_id", " completed", " total", " ratio"),
}
_MISSING = "MISSING_URL_FOR_"


def lines(report: "Report", environment: str) -> Iterator[str]:
    """The story of one comparison: what was found of each competition, the sums, the tip."""
    done = report.terms.execute
    yield f"🔄 Direct sync initialized for {environment}{'' if done else ' (dry run)'}"
    for name, rows in groupby(report.rows, key=lambda row: row["competition_id"]):
        changes = list(rows)
        yield f"📊 Processing {_one_line(name)}: {changes[0]['teams']} teams, {changes[0]['seasons']} seasons"
        yield from (f"   {_change(row, done)}" for row in changes)
    if not report.found:
        yield f"❌ No teams data found for {_one_line(report.terms.competition)}"
    yield from _summary(report)
    yield from _tips(report)


def tables(found: Mapping[str, Sequence[Mapping[str, Any]]], width: int) -> Iterator[Any]:
    """The lists of an analysis, each under its title."""
    from worker.cli.paper import table

    for name, rows in found.items():
        columns = _COLUMNS[name]
        yield _TITLES[name]
        yield table(columns, ([_shown(row[column.strip()]) for column in columns] for row in rows), width)
        yield ""


def _change(row: Mapping[str, Any], done: bool) -> str:
    where = f"season_progress: {_one_line(row['season_year'])}" if row["record"] == "season" else "competition_progress"
    if row["action"] == "held":
        return f"⏳ HELD by a live worker: {where} ({_one_line(row['worker_id'] or 'in use')})"
    if row["action"] == "unproven":
        return f"❓ COMPLETED WITHOUT EVIDENCE: {where} (it says {row['old_count']}, there are no teams)"
    icon, deed = ("➕", "ADD") if row["action"] == "add" else ("🔄", "UPDATE")
    said = f"{icon} {_past(deed) if done else f'Would {deed}'} {where}"
    if row["record"] == "season":
        return f"{said} ({row['new_count']} teams)"
    address = f" ({_one_line(row['competition_url'])})" if row["competition_url"].startswith(_MISSING) else ""
    return f"{said} record{address}"


def _past(deed: str) -> str:
    return {"ADD": "ADDED", "UPDATE": "UPDATED"}[deed]


def _summary(report: "Report") -> Iterator[str]:
    counts = report.counts()
    yield "📊 SUMMARY:"
    for name in ("competitions", "seasons"):
        for action, past in (("add", "added"), ("update", "updated")):
            deed = past if report.terms.execute else f"to {action}"
            yield f"   {name.capitalize()} {deed}: {counts[name][action]}"
    for action, said in (("held", "Held by live workers"), ("unproven", "Completed without evidence")):
        if number := sum(each[action] for each in counts.values()):
            yield f"   {said}: {number}"


def _tips(report: "Report") -> Iterator[str]:
    if report.in_sync:
        yield "✅ In sync"
    elif any(row["action"] in ("add", "update") for row in report.rows) and not report.terms.execute:
        yield "💡 Nothing was changed; --execute makes these changes"
    if any(row["action"] == "unproven" for row in report.rows):
        yield "💡 What is completed without evidence is never changed: collect its teams, or set its record back"


def _shown(value: object) -> object:
    return None if value is None else str(value)


def _one_line(text: object) -> str:
    return str(text).replace("\n", " ").replace("\r", " ")
