"""The stats graph against its lower bound: in the learned order, as listed and at random, on 1, 2 and 4 connections.

Lower bound: no schedule on so many cores can be shorter than the longest path of needs, nor than all the work divided
by the cores; both from the functions called bare, one after the other, in the same rounds. Beside it the same schedule
by bare connections, without fence, mark and transaction: what is above that is the worker's own. And `ideal`: what an
order alone is worth, reckoned from the bare functions, where no machine disturbs.
"""

import os
import random
import statistics
import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import asyncpg

from bench.figure import Figure
from bench.flow import until
from bench.ground import ROOT, Ground
from bench.progress import repeated, say
from bench.schedule import Bare, makespan
from worker import migrations
from worker.demo import club, tables
from worker.graph import Graph, Step

SEED, PLAYERS, MATCHES = 2026, 200, 2_000
CONNECTIONS = (1, 2, 4)
ORDERS = ("learned", "listed", "random")
ROUNDS = 6  # each sequence of the three once
LOTS = 99  # random orders that are reckoned
SHIPPED = ROOT / "worker.toml"


async def graph(ground: Ground, runs: int) -> Figure:
    """The ten functions of the football club on two step connections, and in other orders on 1, 2 and 4."""
    told = await repeated("graph", runs, lambda: _graph(ground))
    return Figure.of("graph", "s on 2 connections", "≤ 1.10 of its lower bound", told)


async def _graph(ground: Ground) -> dict[str, float]:
    async with ground.database() as (dsn, connection):
        await migrations.install(connection, "stats")
        made = club.generate(SEED, PLAYERS, ground.sized(MATCHES, least=20))
        await tables.load(connection, made)
        await connection.execute("analyze")
        tenant, told = str(made.tenants[0].id), {}
        for count in CONNECTIONS:
            say(f"    {count} connections")
            async with ground.process(dsn, "-m", "worker", "run", "--config", str(_config(ground, count))):
                told[count] = await _Rounds(connection, dsn, tenant, count).all()
    flat = {f"{name}_on_{count}": value for count in CONNECTIONS for name, value in told[count].items()}
    return {"value": told[2]["learned_s"], "raw": told[2]["bound_s"], **flat}


def _config(ground: Ground, connections: int) -> Path:
    """The shipped file, with so many connections and steps at once."""
    text = SHIPPED.read_text(encoding="utf-8")
    for name, was in (("steps", "steps = 4 "), ("parallel", "parallel = 2 ")):
        assert was in text
        text = text.replace(was, f"{name} = {connections} ")
    path = ground.folder / f"stats_{connections}.toml"
    path.write_text(text, encoding="utf-8")
    return path


class _Rounds:
    """Each round runs every order once, and everything bare, so that what the machine does hits all of them.

    In another sequence each time, as one may find the caches that the one before it left.
    """

    def __init__(self, connection: asyncpg.Connection, dsn: str, tenant: str, connections: int) -> None:
        declared = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))["job"]["stats_update"]["steps"]
        self.graph = drawn(declared)
        self.names = list(declared)
        self.chance = random.Random(SEED)
        self.connection = connection
        self.connections = connections
        self.tenant = tenant
        self.bare = Bare(dsn, self.graph, tenant)
        self.seconds: dict[str, list[float]] = defaultdict(list)  # of each function, called bare
        self.spans: dict[str, list[float]] = defaultdict(list)

    async def all(self) -> dict[str, float]:
        """Medians: seconds of each order, the bound, and each order's ratio to it."""
        await until(self.connection, "select bench.asleep() > 0", seconds=60)
        async with self.bare:
            await self._run()  # to learn the order by
            for orders in islice(permutations(ORDERS), ROUNDS):
                await self._round(orders)
        lanes = min(self.connections, os.cpu_count() or 1)
        bound = lower_bound(self.graph, self._known(), lanes)
        told = {name: statistics.median(all_) for name, all_ in self.spans.items()}
        ratios = {f"{name}_ratio": seconds / bound for name, seconds in told.items()}
        own = told["learned"] / told["bare_schedule"]
        ideal = {
            f"ideal_{name}_ratio": seconds / bound
            for name, seconds in ideals(self.graph, self.names, self._known(), lanes).items()
        }
        return {f"{name}_s": seconds for name, seconds in told.items()} | ratios | ideal | {
            "bound_s": bound, "learned_to_bare_schedule": own}  # fmt: skip

    async def _round(self, orders: Sequence[str]) -> None:
        for name, took in (await self.bare.each()).items():
            self.seconds[name].append(took)
        self.spans["bare_schedule"].append(await self.bare.scheduled(self.connections, self._known()))
        await self._run()  # whoever comes after the bare calls finds colder caches, so it does not count
        for order in orders:
            self.spans[order].append(await self._ordered(order))

    def _known(self) -> dict[str, float]:
        return {name: statistics.median(all_) for name, all_ in self.seconds.items()}

    async def _ordered(self, order: str) -> float:
        await self.connection.execute("select bench.forget()")
        if order != "learned":
            names = self.chance.sample(self.names, len(self.names)) if order == "random" else self.names
            await self.connection.execute("select bench.pretend('stats_update', $1, $2)", *pretence(names))
        return await self._run()

    async def _run(self) -> float:
        job_id = await self.connection.fetchval(
            "select worker.enqueue('stats_update', jsonb_build_object('tenant_id', $1::text))", self.tenant
        )
        await until(self.connection, "select bench.took($1) is not null", job_id)
        took: float = await self.connection.fetchval("select bench.took($1)", job_id)
        return took


def drawn(declared: Mapping[str, Mapping[str, Any]]) -> Graph:
    """The steps of a configuration as a graph."""
    return Graph(Step(name, each["sql"], needs=tuple(each.get("needs", ()))) for name, each in declared.items())


def lower_bound(graph: Graph, seconds: Mapping[str, float], cores: int) -> float:
    """The longest path of needs, or all the work spread evenly over the cores, whichever is longer."""
    return max(*graph.remaining(seconds).values(), sum(seconds.values()) / cores)


def ideals(graph: Graph, names: Sequence[str], seconds: Mapping[str, float], lanes: int) -> dict[str, float]:
    """What each order alone is worth: makespans reckoned from these seconds; of random orders the median."""
    chance = random.Random(SEED)
    drawn_lots = [chance.sample(names, len(names)) for _ in range(LOTS)]
    listed, *lots = (
        makespan(graph, seconds, graph.remaining(dict(zip(*pretence(each), strict=True))), lanes)
        for each in (names, *drawn_lots)
    )
    learned = makespan(graph, seconds, graph.remaining(seconds), lanes)
    return {"learned": learned, "listed": listed, "random": statistics.median(lots)}


def pretence(names: Sequence[str]) -> tuple[list[str], list[float]]:
    """Seconds that make the longest remaining path first be this very order, as far as needs allow.

    Each is more than all after it together, so that what follows a step changes nothing.
    """
    return list(names), [3.0 ** (len(names) - place) for place in range(len(names))]
