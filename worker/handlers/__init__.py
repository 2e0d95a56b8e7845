"""Handlers: what a job type does, made once at start from its declaration."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from worker.breaker import Sender
from worker.config import JobType
from worker.context import Context
from worker.database import Pool
from worker.errors import DeclarationError
from worker.handlers import coroutine, endpoint, sql_graph
from worker.job import Job
from worker.outcome import Completed, Outcome, Skipped

Handler = Callable[[Context], Awaitable[Any]]

_POOLED = (
    "the database is reached through a transaction pooler, where no step can be stopped or kept from running twice: "
    "set database.direct_url to the address of the server itself, or of a session pooler"
)


async def build(types: Mapping[str, JobType], steps: Pool, outbound: Sender) -> dict[str, Handler]:
    """A handler for each declared type.

    Raises:
        DeclarationError: a SQL function or coroutine is missing or takes other arguments; all faults at once.
    """
    handlers: dict[str, Handler] = {}
    faults: list[str] = []
    for name, job_type in types.items():
        try:
            handlers[name] = await _handler(job_type, steps, outbound)
        except DeclarationError as error:
            faults += error.faults
    if faults:
        raise DeclarationError(faults)
    return handlers


def fallbacks(types: Mapping[str, JobType], outbound: Sender) -> dict[str, Handler]:
    """For each type that has one, what runs its jobs while it, its source or the whole daemon is switched off."""
    return {name: _noted(endpoint.build_fallback(each, outbound)) for name, each in types.items() if each.fallback}


async def switched_off(context: Context) -> Outcome:
    """For jobs whose type, source or daemon is switched off, where there is no fallback."""
    return Skipped("source_off")


def chooser(
    types: Mapping[str, JobType], handlers: Mapping[str, Handler], fallbacks: Mapping[str, Handler], master: bool
) -> Callable[[Job], Handler]:
    """What runs a job: its type's handler; where the type, its source or the whole daemon (`master`) is switched off,
    its fallback, or nothing at all.
    """
    always = {name for name, each in types.items() if master and each.enabled and not each.sources}

    def chosen(job: Job) -> Handler:
        if job.job_type in always:
            return handlers[job.job_type]
        job_type = types[job.job_type]
        if master and job_type.enabled and job_type.sources.get(job.source or "", True):
            return handlers[job.job_type]
        return fallbacks.get(job.job_type, switched_off)

    return chosen


def _noted(handler: Handler) -> Handler:
    async def noted(context: Context) -> Any:
        came = await handler(context)
        return [replace(each, reason="fallback") if isinstance(each, Completed) else each for each in came]

    return noted


async def _handler(job_type: JobType, steps: Pool, outbound: Sender) -> Handler:
    if job_type.kind == "steps":
        if not steps.way.keeps:
            raise DeclarationError([f"job.{job_type.name}.steps: {_POOLED}"])
        return await sql_graph.build(job_type, steps)
    if job_type.kind == "python":
        coroutine.note_tasks()
        return coroutine.build(job_type)
    return endpoint.build(job_type, outbound)
