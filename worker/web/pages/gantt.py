"""A job's steps as the geometry of a chart: bars over time, what waited for what, long pauses cut short. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from worker import course
from worker.web.pages.words import span

ROW = 26  # pixels
PAUSE = 0.3  # of what was busy: a longer pause is cut
CUT = 0.07  # of the width, for a pause that was cut
SLOW = 2.0  # times the usual, to be told
WORTH_SECONDS = 0.05  # and no shorter
NARROW, WIDE = 18.0, 80.0  # percent, where a text has room beside a bar

Times = Sequence[tuple[float, float]]
Job = Mapping[str, Any]
Needs = Mapping[str, Sequence[str]]


@dataclass
class Bar:
    """One step, in percent of the width and pixels of the height.

    Attributes:
        tone: the class that colours it.
        notes: what is worth a word beside state and length.
        anchor, label_x: where the length stands.
    """

    name: str
    status: str
    tone: str
    length: str
    attempt: int
    row: int
    x: float | None
    width: float
    label_x: float
    anchor: str
    notes: tuple[str, ...]
    kept: bool
    error: str | None
    needs: tuple[str, ...] = ()
    critical: bool = False

    @property
    def y(self) -> int:
        return self.row * ROW

    @property
    def end(self) -> float:
        return (self.x or 0.0) + self.width


@dataclass(frozen=True)
class Link:
    """From the end of a step to the start of one that needs it."""

    x: float
    to_x: float
    y: int
    to_y: int
    critical: bool


@dataclass
class Chart:
    """What the template draws."""

    bars: list[Bar]
    links: list[Link] = field(default_factory=list)
    ticks: list[tuple[float, str, str]] = field(default_factory=list)
    cuts: list[tuple[float, float, str]] = field(default_factory=list)
    falls: list[tuple[float, str]] = field(default_factory=list)
    slowest: Bar | None = None
    critical: list[str] = field(default_factory=list)

    @property
    def height(self) -> int:
        return max(len(self.bars), 1) * ROW


class Scale:
    """Seconds to percent. What was busy keeps its proportions; a long pause between takes a fixed width."""

    def __init__(self, times: Times) -> None:
        merged = _merged(times)
        busy = sum(end - began for began, end in merged) or 1e-3
        self._pieces: list[tuple[float, float, float, float]] = []  # from, to in seconds; from, to in shares
        self.cuts: list[tuple[float, float, float]] = []
        at, pieces, last = 0.0, [], None
        for began, end in merged:
            if last is not None:
                pause = began - last
                wide = busy * CUT if pause > PAUSE * busy else pause
                if wide != pause:
                    self.cuts.append((at, at + wide, pause))
                pieces.append((last, began, at, at + wide))
                at += wide
            pieces.append((began, end, at, at + max(end - began, 1e-9)))
            at += max(end - began, 1e-9)
            last = end
        self._whole = at or 1.0
        self._pieces = pieces

    def percent(self, seconds: float) -> float:
        """Where an instant stands."""
        for began, end, left, right in self._pieces:
            if seconds <= end:
                share = (seconds - began) / (end - began) if end > began else 0.0
                return self.share(left + max(share, 0.0) * (right - left))
        return 100.0

    def share(self, at: float) -> float:
        """A place of its own measure in percent."""
        return round(at / self._whole * 100, 3)

    def ticks(self) -> list[float]:
        """Instants worth a line: round ones, or the start alone where a pause was cut."""
        if self.cuts:
            return [0.0]  # the rest is told by the lengths of the pauses
        whole = self._whole
        unit: float = next(u for u in _units() if whole / u <= 6)
        return [n * unit for n in range(int(whole / unit) + 1)]


def chart(job: Job, needs: Needs) -> Chart:
    """The chart of a job as `worker.job_page` tells it.

    Args:
        needs: by step name, where its type is declared here.
    """
    steps = [course.drawn(step, job) for step in job["steps"]]
    ran = [step for step in steps if step["began"] is not None]
    scale = Scale([(step["began"], course.ended(step)) for step in ran] or [(0.0, 1.0)])
    # What an earlier attempt had done kept nobody waiting in this one.
    path = course.critical([step for step in steps if step["name"] not in job["earlier"]], needs)
    path = path if len(path) > 1 and job["status"] != "running" else []
    made = Chart([_bar(row, step, job, scale) for row, step in enumerate(steps)], critical=path)
    for bar in made.bars:
        bar.needs, bar.critical = tuple(needs.get(bar.name, ())), bar.name in path
    made.links = _links(made.bars, path)
    longest = max(ran, key=lambda step: step["seconds"], default=None)
    made.slowest = next((bar for bar in made.bars if longest and bar.name == longest["name"]), None)
    if ran:
        made.ticks = [_tick(scale.percent(at), at) for at in scale.ticks()]
        made.cuts = [(scale.share(left), scale.share(right - left), span(pause)) for left, right, pause in scale.cuts]
        made.falls = list(_falls(job, scale))
    return made


def _bar(row: int, step: Mapping[str, Any], job: Job, scale: Scale) -> Bar:
    kept = step["name"] in job["earlier"]
    x = None if step["began"] is None else scale.percent(step["began"])
    width = 0.0 if x is None else max(scale.percent(course.ended(step)) - x, 0.4)
    label_x, anchor = _beside(x or 0.0, width)
    stranded = step["status"] != job["steps"][row]["status"]
    return Bar(
        name=step["name"], status="interrupted" if stranded else step["status"], tone=_tone(step, kept),
        length=span(step["seconds"]), attempt=step["attempt"], row=row, x=x, width=width, label_x=label_x,
        anchor=anchor,
        notes=tuple(_notes(step, job, kept)), kept=kept, error=step["error"],
    )  # fmt: skip


def _notes(step: Mapping[str, Any], job: Job, kept: bool) -> Iterator[str]:
    if kept:
        yield f"done by attempt {step['attempt']} and kept: not run again"
    elif step["attempt"] > 1:
        yield f"attempt {step['attempt']}"
    usual, took = job["usual"].get(step["name"]), step["seconds"]
    if usual and took and took > SLOW * usual and took > WORTH_SECONDS:
        yield f"{took / usual:.1f} × its usual {span(usual)}"


def _tone(step: Mapping[str, Any], kept: bool) -> str:
    tones = {"completed": "good", "failed": "bad", "running": "run"}
    return "kept" if kept else tones.get(step["status"], "wait")


def _beside(x: float, width: float) -> tuple[float, str]:
    """Where a bar's length is written: after it, before it, or where neither has room in it."""
    if x + width <= WIDE:
        return x + width, "start"
    return (x, "end") if x >= NARROW else (x + width, "inside")


def _links(bars: Sequence[Bar], path: Sequence[str]) -> list[Link]:
    by_name = {bar.name: bar for bar in bars}
    made = []
    for bar in bars:
        for need in bar.needs:
            other = by_name.get(need)
            if other is not None and other.x is not None and bar.x is not None:
                critical = bar.critical and other.critical and path.index(bar.name) == path.index(need) + 1
                half = ROW // 2
                made.append(Link(min(other.end, bar.x), bar.x, other.y + half, bar.y + half, critical))
    return made


def _tick(percent: float, seconds: float) -> tuple[float, str, str]:
    return percent, "start" if percent < 4 else "end" if percent > 96 else "middle", span(seconds) if seconds else "0"


def _falls(job: Job, scale: Scale) -> Iterator[tuple[float, str]]:
    """Where attempts failed, in time."""
    first = min(step["started_at"] for step in job["steps"] if step["started_at"])
    for error in job["errors"] or ():
        seconds = (datetime.fromisoformat(error["at"]) - datetime.fromisoformat(first)).total_seconds()
        if seconds >= 0:
            yield scale.percent(seconds), f"attempt {error['attempt']} failed"


def _merged(times: Times) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for began, end in sorted(times):
        if merged and began <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((began, end))
    return merged


def _units() -> Iterator[float]:
    unit = 0.001
    while True:
        yield from (unit, 2 * unit, 5 * unit)
        unit *= 10
