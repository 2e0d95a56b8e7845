"""What is kept of measurements: docs/performance.json, and the page and plots that are made from it alone.

Each figure and each plot has one place, that of its last run; so a run of some replaces theirs alone.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bench.circumstances import commit, machine
from bench.figure import VERDICTS, Figure, shown
from bench.ground import ROOT
from bench.names import NAMES
from bench.series import Series
from bench.svg import Plot

RESULTS = ROOT / "docs/performance.json"
PAGE = ROOT / "docs/performance.md"
PLOTS = ROOT / "docs/performance"
HEAD = """# Performance

What one process does on one machine, and what raw SQL does there in the same run. `python3 dev.py bench --write`
measures it and writes this page; `bench/` holds the measurements, and `python3 dev.py bench --help` says what each is.
Other queues, measured beside it: [performance-peers.md](performance-peers.md).

- **Only the ratio tells something about another machine.** It is the median of the ratios of single runs, in each of
  which both were measured one after the other, on the same server: fsync and synchronous_commit on, every row kept.
- *spread* is the least and the most of the runs: of their ratios where there is a ratio, else of the values.
- *beside* names further figures of the same runs. Where a figure is measured with `concurrency` at 1,000 and
  `prefetch` at 2,000, `default_settings` is what the settings' defaults give.
"""
CELL = re.compile(r"(?P<what>\w+)_on_(?P<on>\d+)")
DRAWN: Mapping[str, Mapping[str, Any]] = {
    "batch_size": {
        "title": "Throughput against batch size", "x": "jobs in a claim (raw SQL), concurrency and prefetch (worker)",
        "y": "jobs a second", "log_x": True,
    },
    "pick_up": {
        "title": "Pick-up of an idle daemon", "x": "milliseconds from insert to start", "y": "% of the jobs",
        "log_x": True, "bars": True,
    },
    "table_size": {
        "title": "Cost against table size", "x": "rows that only lie there", "y": "µs of Postgres' CPU a job",
        "log_x": True,
    },
}  # fmt: skip


def kept() -> dict[str, Any]:
    """What was written last."""
    if not RESULTS.exists():
        return {"runs": {}, "figures": {}, "series": {}}
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def write(figures: Sequence[Figure], series: Mapping[str, Series], scale: float, note: str) -> None:
    """Put a run beside the earlier ones, in place of theirs, and make page and plots anew."""
    results = kept()
    name = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    results["runs"][name] = {"commit": commit(), "machine": machine(), "scale": scale, "note": note}
    for figure in figures:
        results["figures"][figure.name] = {**figure.as_dict(), "run": name}
    for drawn, lines in series.items():
        results["series"][drawn] = {"lines": lines, "run": name}
    used = {each["run"] for part in ("figures", "series") for each in results[part].values()}
    results["runs"] = {name: run for name, run in results["runs"].items() if name in used}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    make()


def make() -> None:
    """Page and plots, from the results."""
    results = kept()
    PAGE.write_text(page(results), encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, text in plots(results).items():
        (PLOTS / f"{name}.svg").write_text(text, encoding="utf-8")


def plots(results: Mapping[str, Any]) -> dict[str, str]:
    """SVG by name."""
    return {name: Plot(lines=each["lines"], **DRAWN[name]).svg() for name, each in results["series"].items()}


def page(results: Mapping[str, Any]) -> str:
    """The page, from the results."""
    lines = [HEAD.rstrip("\n"), *_runs(results), *_table(results), *_beside(results), *_shown(results)]
    return "\n".join(lines) + "\n"


def _runs(results: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Runs", "")
    for name, run in sorted(results["runs"].items()):
        trial = "" if run["scale"] == 1 else f" **A trial** at {run['scale']:g} of all counts: its figures mean little."
        note = f" {run['note']}" if run["note"] else ""
        yield f"- **{name}**: commit {run['commit']}, {run['machine']}.{trial}{note}"


def _table(results: Mapping[str, Any]) -> Iterator[str]:
    runs = results["runs"]
    yield from ("", "## Figures", "")
    yield "| what | measured | raw or own base | ratio | spread | runs | goal | holds | run |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, each in _in_order(results["figures"]):
        raw, ratio = (shown(each[key]) if each[key] is not None else "–" for key in ("raw", "ratio"))
        spread = " to ".join(map(shown, each["spread"]))
        cells = (name, f"{shown(each['value'])} {each['unit']}", raw, ratio, spread, len(each["runs"]), each["goal"],
                 VERDICTS[each["holds"]] if runs[each["run"]]["scale"] == 1 else "a trial", each["run"])  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def _in_order(figures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """As the names are listed; what is named no more comes last."""
    places = list(NAMES)
    return sorted(figures.items(), key=lambda item: places.index(item[0]) if item[0] in NAMES else len(places))


def _beside(results: Mapping[str, Any]) -> Iterator[str]:
    if missing := [name for name in NAMES if name not in results["figures"]]:
        yield f"\nNot measured yet: {', '.join(missing)}."
    yield from ("", "## Beside", "")
    for name, each in _in_order(results["figures"]):
        grid = [found for key in each["beside"] if (found := CELL.fullmatch(key))]
        cells = {found.group() for found in grid}
        rest = [f"{key} {shown(value)}" for key, value in each["beside"].items() if key not in cells]
        if rest:
            yield f"- **{name}**: {', '.join(rest)}"
        if grid:
            yield from _grid(name, grid, each["beside"])


def _grid(name: str, grid: Sequence[re.Match[str]], beside: Mapping[str, float]) -> Iterator[str]:
    """Figures such as learned_s_on_2 as a table, a row for what and a column for each number."""
    columns = sorted({found["on"] for found in grid}, key=int)
    yield from ("", f"| {name} on | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}")
    for what in dict.fromkeys(found["what"] for found in grid):
        told = (beside.get(f"{what}_on_{on}") for on in columns)
        yield f"| {what} | {' | '.join('–' if value is None else shown(value) for value in told)} |"
    yield ""


def _shown(results: Mapping[str, Any]) -> Iterator[str]:
    for name, each in results["series"].items():
        yield from ("", f"## {DRAWN[name]['title']}", "")
        yield f"![{DRAWN[name]['title']}](performance/{name}.svg)"
        yield from ("", f"Run {each['run']}. x is {DRAWN[name]['x']}, y {DRAWN[name]['y']}:", "")
        for line, points in each["lines"].items():
            yield f"- {line}: {', '.join(f'{shown(x)} → {shown(y)}' for x, y in points)}"
