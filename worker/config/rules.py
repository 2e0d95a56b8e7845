"""Rules between keys, which no single key can see. Each yields (key, message)."""

from collections.abc import Container, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

from worker.config.job_type import Backlog, JobType, StepKeys
from worker.config.lines import Path as Key
from worker.config.models import Config, Worker
from worker.errors import GraphError
from worker.graph import Graph, Step

Found = Iterator[tuple[Key, str]]
Raw = Mapping[str, Any]

_KINDS = ("steps", "python", "http")
_ONLY_FOR: Mapping[str, tuple[str, ...]] = {
    "arguments": ("steps",),
    "parallel": ("steps",),
    "settings": ("python",),
    "method": ("http",),
    "body": ("http",),
    "coalesce": ("http",),
    "partial": ("http",),
    "headers": ("http", "fallback"),
    "secrets": ("http", "fallback"),
    "allow": ("http", "fallback"),
    "retry_after_max": ("http", "fallback"),
}


def check(config: Config, raw: Raw) -> Found:
    """Every broken rule.

    Args:
        config: the sections that could be read; a faulty key is at its default, a job that lacks a key is not there.
        raw: the file as written, for what is declared at all.
    """
    if config.database.url is None and "url" not in _table(raw, "database"):
        yield ("database", "url"), "missing; set it here, or DATABASE_URL in the environment"
    yield from _worker(config.worker)
    yield from _listener(config, _table(raw, "http"))
    for name, job in config.job.items():
        yield from _kind(("job", name), _table(_table(raw, "job"), name))
        if job.steps is not None:
            yield from _steps(("job", name, "steps"), _table(_table(_table(raw, "job"), name), "steps"), job.steps)
        if job.backlog is not None:
            yield from _share(("job", name, "backlog", "per_tenant"), job.backlog)
        yield from _follow_ups(("job", name), job, config, _table(raw, "job"))
    yield from _then_cycles(config)
    yield from _schedules(config, _table(raw, "job"))


def _table(raw: Raw, name: str) -> Raw:
    table = raw.get(name)
    return table if isinstance(table, dict) else {}


def _worker(worker: Worker) -> Found:
    order = ("beat", "fence", "missing", "lease")
    for shorter, longer in pairwise(order):
        if getattr(worker, shorter) >= getattr(worker, longer):
            key = longer if longer in worker.model_fields_set else shorter
            yield ("worker", key), f"{shorter} must be shorter than {longer}: beat < fence < missing < lease"


def _listener(config: Config, raw: Raw) -> Found:
    if config.http is None:
        return
    if not config.http.loopback and not raw.get("keys"):
        yield ("http", "listen"), "beyond loopback only with keys; add [[http.keys]]"
    names = [key.name for key in config.http.keys]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("http", "keys", index, "name"), f"{name} is the name of another key already"


def _kind(key: Key, raw: Raw) -> Found:
    kinds = [kind for kind in _KINDS if kind in raw]
    if len(kinds) != 1:
        said = f"this one has {' and '.join(kinds)}" if kinds else "this one has none"
        yield key, f"a job has exactly one of steps, python, http; {said}"
        return
    for name, owners in _ONLY_FOR.items():
        if name in raw and not any(owner in raw for owner in owners):
            yield (*key, name), f"only for a job with {' or '.join(owners)}"


def _steps(key: Key, raw: Raw, read: Mapping[str, StepKeys]) -> Found:
    # A step that could not be read still exists for those that need it.
    needs = {name: read[name].needs if name in read else () for name in raw}
    yield from _graph(key, needs)
    known = {name: tuple(need for need in wanted if need in needs) for name, wanted in needs.items()}
    if known != needs:  # unknown needs hide cycles
        yield from _graph(key, known)


def _graph(key: Key, needs: Mapping[str, tuple[str, ...]]) -> Found:
    try:
        Graph(Step(name, "", needs=wanted) for name, wanted in needs.items())
    except GraphError as error:
        for fault in error.faults:
            yield _at_step(key, fault, needs)


def _at_step(key: Key, fault: str, steps: Container[str]) -> tuple[Key, str]:
    """The key of the step that a fault of the graph is about: "a: needs …" or "needs form a cycle: a -> b -> a"."""
    before, _, after = fault.partition(": ")
    if before in steps:
        return (*key, before, "needs"), after
    first = after.partition(" -> ")[0]
    return ((*key, first, "needs") if first in steps else key), fault


def _share(key: Key, backlog: Backlog) -> Found:
    if backlog.per_tenant is not None and backlog.then != "refuse":
        yield key, 'only with then = "refuse": jobs put off are pending too, and would fill the others\' room'
    if backlog.per_tenant is not None and backlog.per_tenant > backlog.max:
        yield key, f"more than max, which is {backlog.max}"


def _follow_ups(key: Key, job: JobType, config: Config, declared: Raw) -> Found:
    for field in ("then", "then_failed"):
        for index, target in enumerate(getattr(job, field)):
            if target not in declared:
                yield (*key, field, index), f"{target} is not a declared job"
            elif target in config.job and config.job[target].unique_key is not None:
                yield (*key, field, index), f"{target} has a unique_key, so it cannot follow another job"


def _then_cycles(config: Config) -> Found:
    after = {name: {*job.then, *job.then_failed} for name, job in config.job.items()}
    while cycle := _cycle(after):
        first = min(range(len(cycle) - 1), key=lambda at: cycle[at])
        around = [*cycle[first:-1], *cycle[: first + 1]]
        key = ("job", around[0], _field(config, around[0], around[1]))
        yield key, f"jobs follow in a circle: {' -> '.join(around)}"
        after[around[0]].discard(around[1])


def _cycle(after: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def _field(config: Config, job: str, target: str) -> str:
    return "then" if target in config.job[job].then else "then_failed"


def _schedules(config: Config, declared: Raw) -> Found:
    for name, schedule in config.schedule.items():
        if schedule.job not in declared:
            yield ("schedule", name, "job"), f"{schedule.job} is not a declared job"
        if schedule.payload is not None and schedule.for_each is not None:
            yield ("schedule", name, "for_each"), "either payload or for_each, not both"
