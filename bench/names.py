"""Every measurement by its name, in the order in which it is run and told."""

from collections.abc import Callable, Coroutine
from typing import Any

from bench.api import api
from bench.backlog import backlog, snapshot
from bench.children import children
from bench.drain import drain, drain_5ms
from bench.enqueue import enqueue, enqueue_many, trigger
from bench.fanin import fanin
from bench.figure import Figure
from bench.graph import graph
from bench.ground import Ground
from bench.latency import idle, pickup, sustained
from bench.memory import memory
from bench.pages import pages
from bench.step import step
from bench.workers import workers

NAMES: dict[str, Callable[[Ground, int], Coroutine[Any, Any, Figure]]] = {
    each.__name__: each
    for each in (
        drain, drain_5ms, enqueue, enqueue_many, trigger, pickup, sustained, backlog, snapshot, idle, graph, step,
        fanin, memory, workers, children, pages, api,
    )
}  # fmt: skip
