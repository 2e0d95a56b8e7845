"""Question 4: what the bell costs whoever inserts a job, and that no job slips between mark and sleep."""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from bench.spike import harness
from bench.spike.harness import SCHEMA, SQL, opened, p50, text

VARIANTS = (
    "b2_silent",
    "b2_quiet",
    "b2_invoker",
    "b2_anyrow",
    "b2_early",
    "b2_gate",
    "b2_gateany",
    "b2_ring",
    "b2_always",
)
SLOW_COMMIT = "-c commit_delay=2000 -c commit_siblings=0"
CASES = {"1 client": (1, ""), "50 clients": (50, ""), "50 clients, slow commit": (50, SLOW_COMMIT)}


async def pgbench(variant: str, clients: int, options: str, seconds: int = 1) -> tuple[float, float]:
    """Transactions a second and the mean latency in ms; PGBENCH names the program when it is not on the path."""
    url = urlsplit(os.environ["DATABASE_URL"])
    target = urlunsplit(url._replace(path="/" + harness.database_name(variant)))
    process = await asyncio.create_subprocess_exec(
        os.environ.get("PGBENCH", "pgbench"),
        "-n",
        "-c",
        str(clients),
        "-j",
        "1",
        "-T",
        str(seconds),
        "-M",
        "prepared",
        "-f",
        str(SQL / "common" / "insert_one.sql"),
        target,
        env={**os.environ, "PGOPTIONS": options},
        stdout=asyncio.subprocess.PIPE,
    )
    out = (await process.communicate())[0].decode()
    rate, latency = re.search(r"tps = ([\d.]+)", out), re.search(r"latency average = ([\d.]+)", out)
    if rate is None or latency is None:
        raise RuntimeError(out)
    return float(rate[1]), float(latency[1])


async def costs(rounds: int) -> dict[str, dict[str, list[float]]]:
    rates: dict[str, dict[str, list[float]]] = {case: {v: [] for v in VARIANTS} for case in CASES}
    for turn in range(rounds):
        for case, (clients, options) in CASES.items():
            for variant in VARIANTS if turn % 2 else VARIANTS[::-1]:
                async with opened(variant) as (connection,):
                    await connection.execute(text(variant, "reset"))
                    await connection.add_listener("worker", lambda *_: None)
                    rates[case][variant].append((await pgbench(variant, clients, options))[0])
    return rates


async def slips() -> list[str]:
    """An INSERT that looked before there was a mark and commits after it: seen by the horizon, not by a ring."""
    story = []
    async with opened("b2_gate", 3) as (app, worker, ears):
        await app.execute(text("b2_gate", "reset"))
        rings: list[str] = []
        await ears.add_listener("worker", lambda *args: rings.append(args[-1]))
        await app.execute("begin")
        await app.execute(text("b2_gate", "insert_one"))
        await worker.execute(text("b2_gate", "bell_on"))
        first = await look(worker)
        story.append(f"look after the mark: {found(first, first)}, rings {len(rings)}")
        story.append(f"look again: {found(await look(worker), first)}, rings {len(rings)}")
        await app.execute("commit")
        await asyncio.sleep(0.05)
        story.append(f"after its commit: {found(await look(worker), first)}, rings {len(rings)}")
        await app.execute(text("b2_gate", "insert_one"))
        await asyncio.sleep(0.05)
        story.append(f"next INSERT: rings {len(rings)}")
    return story


async def look(connection: asyncpg.Connection) -> asyncpg.Record:
    return await connection.fetchrow("select * from worker.claim(1, $1, array['type_1'], 10)", time.time_ns())


def found(row: asyncpg.Record, first: asyncpg.Record) -> str:
    side = "below" if row["horizon"] < first["frontier"] else "at"
    return f"{len(row['jobs'] or [])} found, horizon {side} the frontier"


async def measure(rounds: int = 6) -> dict[str, Any]:
    for variant in VARIANTS:
        await harness.create(variant, (*SCHEMA, "wake", "mark"))
    rates = await costs(rounds)
    story = await slips()
    for variant in VARIANTS:
        await harness.drop(variant)
    return {"rates": rates, "slips": story}


def report(result: dict[str, Any]) -> str:
    rows = []
    for case, rates in result["rates"].items():
        base = rates["b2_silent"]
        ratios = [p50([rate / without for rate, without in zip(rates[v], base, strict=True)]) for v in VARIANTS[1:]]
        rows.append((case, p50(base), *ratios))
    head = ("case", "no trigger, /s", *(f"{v}, ratio" for v in VARIANTS[1:]))
    return harness.table(head, rows) + "\n" + "\n".join(result["slips"])
