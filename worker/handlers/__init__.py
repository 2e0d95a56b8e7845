"""Handlers: what a job type does, made once at start from its declaration."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

from worker.config import JobType
from worker.context import Context
from worker.errors import DeclarationError
from worker.handlers import coroutine, sql_graph

Handler = Callable[[Context], Awaitable[Any]]


async def build(types: Mapping[str, JobType], steps: "asyncpg.Pool[asyncpg.Record]") -> dict[str, Handler]:
    """A handler for each declared type.

    Raises:
        DeclarationError: a SQL function or coroutine is missing or takes other arguments; all faults at once.
    """
    handlers: dict[str, Handler] = {}
    faults: list[str] = []
    for name, job_type in types.items():
        try:
            handlers[name] = await _handler(job_type, steps)
        except DeclarationError as error:
            faults += error.faults
    if faults:
        raise DeclarationError(faults)
    return handlers


async def _handler(job_type: JobType, steps: "asyncpg.Pool[asyncpg.Record]") -> Handler:
    if job_type.kind == "steps":
        return await sql_graph.build(job_type, steps)
    if job_type.kind == "python":
        return coroutine.build(job_type)
    raise DeclarationError([f"job.{job_type.name}: http jobs come with a later release"])
