"""Every call of the database, from its begin to its end as the server logged it, against what became of the rows.

A claim lives from the call that took the job to the one that ended it. Two lives of a job never overlap, each begins
and ends in a call that may do so, and what was written under a claim was written while it lived, by a call that named
it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg

PREFIX = "@%n %p %x "  # of each line of the log: seconds of the epoch, backend, transaction
SETTINGS = {"log_min_duration_statement": "0", "log_line_prefix": PREFIX, "log_parameter_max_length": "-1"}
SLACK = 1.0  # seconds: the log's line comes before the commit
BIRTHS = ("claim", "rescue")
VERDICTS = ("settle", "complete")
DEATHS = (*VERDICTS, "unclaim", "rescue")

_LINE = re.compile(r"^@(\d+\.\d+) (\d+) (\d+) (\w+):  (.*)", re.DOTALL)
_CALL = re.compile(r"duration: ([0-9.]+) ms  (?:execute [^:]*|statement): (.*)", re.DOTALL)
_FUNCTION = re.compile(r"\bworker\.(\w+)\(")
_VERDICT = re.compile(r'"\((\d+),(\d+),\w+,')
_LIST = re.compile(r"\$([23]) = '\{([\d,]*)\}'")
_NUMBERS = re.compile(r"\$(\d+) = '(\d+)'")

# What one row of the history says, by the database's own clock, which is the log's as well.
CHANGES = """
    select extract(epoch from at)::float8 as at, xid, job_id, old_status, new_status, old_claim, new_claim
    from evidence.hist order by n
"""
MARKS = "select extract(epoch from at)::float8 as at, xid, job_id, claim from evidence.marks where status = 'completed'"
EFFECTS = "select extract(epoch from at)::float8 as at, xid, job_id, step from evidence.fx"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """One call of a function of the queue, its own transaction; `named` are the (job, claim) that it wrote under."""

    began: float
    ended: float
    xid: int
    function: str
    named: frozenset[tuple[int, int]]


@dataclass
class Life:
    """A claim on a job."""

    job: int
    claim: int
    born: float
    died: float = float("inf")
    ended_in: Call | None = None


def logged(log: Path) -> Iterator[Call]:
    """The calls that a server with SETTINGS logged; a line that belongs to another begins with a tab."""
    entry: tuple[str, ...] | None = None
    for line in log.read_text(encoding="utf-8", errors="replace").replace("\n\t", " ").splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        at, pid, xid, kind, text = found.groups()
        if entry and kind == "DETAIL" and pid == entry[1]:
            yield from _call(*entry, text)
            entry = None
        else:
            if entry:
                yield from _call(*entry, "")
            entry = (at, pid, xid, text) if kind == "LOG" and _CALL.match(text) else None
    if entry:
        yield from _call(*entry, "")


def _call(at: str, _: str, xid: str, text: str, parameters: str) -> Iterator[Call]:
    seconds, statement = _CALL.match(text).groups()  # type: ignore[union-attr]
    if function := _FUNCTION.search(statement):
        numbers = {int(place): int(value) for place, value in _NUMBERS.findall(parameters)}
        named = {(int(job), int(claim)) for job, claim in _VERDICT.findall(parameters)}
        if function[1] == "run_step":
            named = {(numbers[1], numbers[2])}
        if function[1] == "complete":
            lists = {
                int(place): map(int, filter(None, listed.split(","))) for place, listed in _LIST.findall(parameters)
            }
            named = set(zip(lists[2], lists[3], strict=True))
        ended = float(at)
        yield Call(ended - float(seconds) / 1000, ended, int(xid), function[1], frozenset(named))


def lives(changes: Iterable[Row], calls: Sequence[Call]) -> tuple[dict[tuple[int, int], Life], list[str]]:
    """Claims by (job, claim), and what was wrong with how they began and ended."""
    found: dict[tuple[int, int], Life] = {}
    wrong = []
    by_xid = {call.xid: call for call in calls}
    for row in changes:
        ends = row["old_status"] == "running"
        begins = row["new_status"] == "running" and row["new_claim"] != row["old_claim"]
        if not begins and not (ends and row["new_status"] != "running"):
            continue
        call = by_xid.get(row["xid"])
        name = call.function if call else "no call at all"
        if ends:
            life = found.get((row["job_id"], row["old_claim"]))
            if life is None or life.died < float("inf"):
                wrong.append(f"job {row['job_id']}: claim {row['old_claim']} ended, and did not live")
                continue
            life.died, life.ended_in = row["at"], call
            if name not in DEATHS:
                wrong.append(f"job {row['job_id']}: claim {row['old_claim']} was ended by {name}")
        if begins:
            if name not in BIRTHS:
                wrong.append(f"job {row['job_id']}: claim {row['new_claim']} was made by {name}")
            found[row["job_id"], row["new_claim"]] = Life(row["job_id"], row["new_claim"], row["at"])
    return found, wrong


def overlaps(found: Iterable[Life]) -> Iterator[str]:
    """Lives of one job that do."""
    by_job: dict[int, list[Life]] = defaultdict(list)
    for life in found:
        by_job[life.job].append(life)
    for job, claims in by_job.items():
        claims.sort(key=lambda life: life.born)
        for before, after in pairwise(claims):
            if before.died > after.born:
                yield f"job {job}: claim {after.claim} began while {before.claim} lived"


def writes(found: Mapping[tuple[int, int], Life], calls: Sequence[Call]) -> Iterator[str]:
    """Of settles: a life ends in a call that names it, and a call that names a living claim ends it."""
    for life in found.values():
        if life.ended_in and life.ended_in.function in VERDICTS and (life.job, life.claim) not in life.ended_in.named:
            yield f"job {life.job}: claim {life.claim} was settled by a call that names another"
    for call in calls:
        if call.function not in VERDICTS:
            continue
        for name in call.named:
            life = found.get(name)
            if life is None:
                yield f"job {name[0]}: somebody settled claim {name[1]}, which never was"
            elif life.born < call.began and life.died > call.ended + SLACK:
                yield f"job {life.job}: claim {life.claim} lived, and its settle was refused"


def steps(
    found: Mapping[tuple[int, int], Life], calls: Sequence[Call], marks: Iterable[Row], effects: Iterable[Row]
) -> Iterator[str]:
    """Marks and effects lie within the life of the claim that wrote them."""
    for mark in marks:
        life = found.get((mark["job_id"], mark["claim"]))
        if life is None or not life.born <= mark["at"] <= life.died:
            yield f"job {mark['job_id']}: a step was marked under claim {mark['claim']}, which did not live"
    by_xid = {call.xid: call for call in calls}
    for effect in effects:
        call = by_xid.get(effect["xid"])
        claims = [found.get(name) for name in call.named] if call and call.function == "run_step" else []
        if not any(life and life.job == effect["job_id"] and life.born <= effect["at"] <= life.died for life in claims):
            yield f"job {effect['job_id']}: step {effect['step']} took effect under no claim that lived"


async def listen(connection: asyncpg.Connection) -> None:
    """Let the server log every call."""
    for name, value in SETTINGS.items():
        await connection.execute(f"alter system set {name} = '{value}'")
    await connection.execute("select pg_reload_conf()")


async def wrongs(connection: asyncpg.Connection, log: Path) -> tuple[int, list[str]]:
    """How many calls were looked at, and what was wrong with them."""
    calls = list(logged(log))
    changes, marks, effects = [await connection.fetch(question) for question in (CHANGES, MARKS, EFFECTS)]
    found, wrong = lives(changes, calls)
    wrong += overlaps(found.values())
    wrong += writes(found, calls)
    wrong += steps(found, calls, marks, effects)
    return len(calls), wrong
