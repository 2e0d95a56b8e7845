"""A graph without a worker: its functions called bare, on one connection or several; and schedules reckoned."""

import asyncio
import heapq
import time
from collections.abc import Mapping
from types import TracebackType

import asyncpg

from worker.graph import Graph

MOST = 4  # connections


def makespan(graph: Graph, seconds: Mapping[str, float], weight: Mapping[str, float], lanes: int) -> float:
    """Seconds from start to end on so many lanes, when of the steps that are ready the heaviest starts first."""
    now, free = 0.0, lanes
    waiting, done = set(graph.steps), set[str]()
    running: list[tuple[float, str]] = []
    while waiting or running:
        ready = [name for name in waiting if set(graph.steps[name].needs) <= done]
        for name in sorted(ready, key=lambda each: -weight[each])[:free]:
            waiting.remove(name)
            heapq.heappush(running, (now + seconds[name], name))
            free -= 1
        now, ended = heapq.heappop(running)
        done.add(ended)
        free += 1
    return now


class Bare:
    """Connections that call functions and do nothing else: no fence, no mark, no transaction of ours."""

    def __init__(self, dsn: str, graph: Graph, tenant: str) -> None:
        self._dsn = dsn
        self._graph = graph
        self._tenant = tenant
        self._connections: list[asyncpg.Connection] = []

    async def __aenter__(self) -> "Bare":
        settings = {"search_path": "club, public"}
        self._connections = [await asyncpg.connect(self._dsn, server_settings=settings) for _ in range(MOST)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._connections:
            await each.close()

    async def each(self) -> dict[str, float]:
        """Seconds of each function, one after the other."""
        return {name: await self._call(self._connections[0], name) for name in self._graph.steps}

    async def scheduled(self, connections: int, seconds: Mapping[str, float]) -> float:
        """Seconds of all of them on so many connections."""
        weight = self._graph.remaining(seconds)
        waiting, done = set(self._graph.steps), set[str]()
        running: dict[asyncio.Task[float], tuple[str, asyncpg.Connection]] = {}
        free = self._connections[:connections]
        began = time.perf_counter()
        while waiting or running:
            ready = [name for name in waiting if set(self._graph.steps[name].needs) <= done]
            for name in sorted(ready, key=lambda each: -weight[each])[: len(free)]:
                waiting.remove(name)
                connection = free.pop()
                running[asyncio.create_task(self._call(connection, name))] = (name, connection)
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                name, connection = running.pop(task)
                task.result()
                done.add(name)
                free.append(connection)
        return time.perf_counter() - began

    async def _call(self, connection: asyncpg.Connection, name: str) -> float:
        began = time.perf_counter()
        await connection.fetch(f"select {self._graph.steps[name].sql}($1)", self._tenant)
        return time.perf_counter() - began
