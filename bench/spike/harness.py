"""Databases for the variants, SQL files, and the arithmetic of alternating runs."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any

import asyncpg

SQL = Path(__file__).parent / "sql"
SCHEMA = ("base", "queue", "checks", "indexes", "free_keys", "claim", "settle", "processes")


def text(variant: str, name: str) -> str:
    """The variant's own file, else that of the variant it refines (b2 for b2_checks), else the common one."""
    folders = (variant, variant.split("_", maxsplit=1)[0], "common")
    found = (SQL / folder / f"{name}.sql" for folder in folders)
    return next(path for path in found if path.exists()).read_text()


async def connect(database: str | None = None, **settings: str) -> asyncpg.Connection:
    wanted = {"jit": "off"} | settings
    return await asyncpg.connect(os.environ["DATABASE_URL"], database=database, server_settings=wanted)


def database_name(variant: str) -> str:
    return f"spike_{variant}"


async def drop(variant: str) -> None:
    admin = await connect()
    try:
        await admin.execute(f'drop database if exists "{database_name(variant)}" with (force)')
    finally:
        await admin.close()


async def create(variant: str, files: Sequence[str] = SCHEMA) -> None:
    """A fresh database with the variant's tables and functions."""
    await drop(variant)
    admin = await connect()
    try:
        await admin.execute(f'create database "{database_name(variant)}"')
    finally:
        await admin.close()
    connection = await connect(database_name(variant))
    try:
        for name in files:
            await connection.execute(text(variant, name))
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def opened(variant: str, count: int = 1, **settings: str) -> AsyncIterator[list[asyncpg.Connection]]:
    connections = [await connect(database_name(variant), **settings) for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            await connection.close()


async def cpu(connection: asyncpg.Connection) -> float:
    """Seconds of processor time of the backend so far; needs a server on this host. Other load hardly moves it."""
    return processor_time(await connection.fetchval("select pg_backend_pid()"))


def processor_time(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def timed(work: Awaitable[Any]) -> tuple[float, Any]:
    """Milliseconds and the answer."""
    start = time.perf_counter()
    answer = await work
    return (time.perf_counter() - start) * 1e3, answer


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def p50(values: Sequence[float]) -> float:
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    return percentile(values, 0.99)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(shown(cell) for cell in line) + " |" for line in lines)


def shown(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
