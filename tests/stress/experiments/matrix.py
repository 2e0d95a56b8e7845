"""D.6: pools, slots and parallel steps of every size against each other, with connections within connections."""

import time
from pathlib import Path

from tests.heart import write_config
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import Link, faulty
from tests.stress.place import COMPRESSED, Place
from tests.stress.telling import percentile

# (connections for steps, jobs at once, steps of one job at once): the corners, then whatever the seed says
CORNERS = [(1, 1, 1), (1, 50, 10), (20, 50, 10), (20, 1, 10), (2, 50, 2), (10, 10, 10)]
POOL, CONCURRENCY, FAN_OUT = (1, 20), (1, 50), (1, 10)
JOBS = 60
STEPS = 10
SETTLE_SECONDS = 60.0
MOST_CONTROL_MS = 100.0
HELD = "one is held already"
TYPES = """
[job.nested]
python = "tests.stress.misbehaviour:nested"
retry = {{ first = "10ms", max = "50ms", max_attempts = 2 }}
[job.wide]
arguments = {{ job_id = "id" }}
parallel = {fan_out}
retry = {{ first = "10ms", max = "100ms", max_attempts = 3 }}
[job.wide.steps]
{steps}
"""


class Watch:
    """How long the statements of control connections take, as seen from between."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began: dict[Link, float] = {}

    async def __call__(self, when: str, link: Link, text: bytes) -> bool:
        """Told of each statement by the proxy."""
        if link.duty == "control":
            now = time.monotonic()
            if when == "before":
                self._began[link] = now
            elif link in self._began:
                self.seconds.append(now - self._began.pop(link))
        return False


@experiment("57-matrix", nightly=9, limit=400)
async def matrix(place: Place, report: Report) -> None:
    """A daemon for each of several sizes of pool, slots and fan-out; graphs and nested connections: nothing hangs."""
    await _create_steps(place)
    async with faulty(place.dsn) as proxy:
        for number in range(report.planned):
            size = CORNERS[number] if number < len(CORNERS) else _drawn(place)
            watch = proxy.on_statement = Watch()
            config = _configured(place, *size)
            await place.started(place.spawn(config, dsn=proxy.dsn))
            began = time.monotonic()
            await _enqueue(place, size[0])
            settled = await place.settled(SETTLE_SECONDS)
            report.expect(settled, f"pool {size[0]}, concurrency {size[1]}, fan-out {size[2]}: jobs are not final")
            p99 = percentile(watch.seconds, 0.99) * 1000
            report.figures["x".join(map(str, size))] = f"{time.monotonic() - began:.1f} s, control p99 {p99:.0f} ms"
            report.expect(p99 < MOST_CONTROL_MS, f"control calls took {p99:.0f} ms (p99) with {size}")
            place.memory()
            await place.stopped()
            report.injected += 1
    await _judge(place, report)
    await place.judge(report)


async def _create_steps(place: Place) -> None:
    for n in range(STEPS):
        await place.connection.execute(
            f"create function step_{n}(job_id bigint) returns void language sql as"
            f" $$ select evidence.step(job_id, 's{n}', 0.002) $$"
        )


def _drawn(place: Place) -> tuple[int, int, int]:
    return place.chance.randint(*POOL), place.chance.randint(*CONCURRENCY), place.chance.randint(*FAN_OUT)


def _configured(place: Place, pool: int, concurrency: int, fan_out: int) -> Path:
    steps = "\n".join(f's{n} = {{ sql = "step_{n}" }}' for n in range(STEPS))
    worker = COMPRESSED.replace("concurrency = 8", f"concurrency = {concurrency}")
    return write_config(
        place.folder, TYPES.format(fan_out=fan_out, steps=steps), worker=worker,
        database=f'search_path = "public"\nsteps = {pool}',
    )  # fmt: skip


async def _enqueue(place: Place, pool: int) -> None:
    """Graphs of ten steps, and jobs that hold as many connections as there are, up to three."""
    await place.connection.execute("select worker.enqueue('wide') from generate_series(1, $1)", JOBS)
    await place.connection.execute(
        "select worker.enqueue('nested', jsonb_build_object('depth', 1 + n % $2)) from generate_series(1, $1) n",
        min(2 * pool, 12), min(pool + 1, 3),
    )  # fmt: skip


async def _judge(place: Place, report: Report) -> None:
    found = await place.connection.fetch(
        "select job_type, status, coalesce(errors ->> -1, '') as error from worker.job_queue"
        " where status <> 'completed'"
    )
    gave_up = [row for row in found if row["job_type"] == "nested" and HELD in row["error"]]
    others = [tuple(row) for row in found if row not in gave_up]
    report.figures["nested_gave_up"] = len(gave_up)
    report.expect(not others, f"{len(others)} jobs did not complete, such as {others[:2]}")
