"""What daemons and tables hold, looked at again and again, and whether it grows."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

PAGE_MB = os.sysconf("SC_PAGESIZE") / 2**20
NOTE = """
    insert into evidence.gauge (pid, what, value, at)
    select * from unnest($1::int[], $2::text[], $3::float8[], $4::timestamptz[])
"""
SIZES = """
    select c.relname, pg_total_relation_size(c.oid) / 1048576.0 from pg_class c
    where c.relnamespace = 'worker'::regnamespace and c.relkind = 'r'
"""


class Witness:
    """Readings by (pid, what) and table, each with the moment in seconds."""

    def __init__(self) -> None:
        self.readings: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
        self.sizes: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def look(self, pids: Iterable[int]) -> None:
        """Memory, open files and threads of each process that lives (Linux)."""
        now = time.time()
        for pid in pids:
            with suppress(OSError, IndexError, ValueError):
                for what, value in held(pid):
                    self.readings[pid, what].append((now, value))

    async def measure(self, connection: asyncpg.Connection) -> None:
        """The sizes of the queue's tables with their indexes, in MB."""
        for name, size in await connection.fetch(SIZES):
            self.sizes[name].append((time.time(), float(size)))

    async def tell(self, connection: asyncpg.Connection) -> None:
        """Give the readings to the checker."""
        rows = [(pid, what, value, datetime.fromtimestamp(at, UTC))
                for (pid, what), values in self.readings.items() for at, value in values]  # fmt: skip
        await connection.execute(NOTE, *(zip(*rows, strict=True) if rows else [[]] * 4))


def held(pid: int) -> Iterator[tuple[str, float]]:
    """What one process holds now."""
    proc = Path(f"/proc/{pid}")
    yield "rss_mb", int((proc / "statm").read_text().split()[1]) * PAGE_MB
    yield "files", len(list((proc / "fd").iterdir()))
    yield "threads", len(list((proc / "task").iterdir()))


def slope(readings: Sequence[tuple[float, float]]) -> float:
    """By how much it grows in a second, by least squares over the later three quarters; 0 for too few."""
    late = readings[len(readings) // 4 :]
    if len(late) < 3:
        return 0.0
    mean_at = sum(at for at, _ in late) / len(late)
    mean = sum(value for _, value in late) / len(late)
    spread = sum((at - mean_at) ** 2 for at, _ in late)
    return sum((at - mean_at) * (value - mean) for at, value in late) / spread if spread else 0.0
