"""The points at which a daemon is killed: before and after each statement that it has committed by the server."""

import asyncio
import signal
from dataclasses import dataclass, field

from tests.processes import Daemon
from tests.stress.fault_proxy import FaultProxy, Link
from tests.stress.workload import RETRY

# What ends with a note is known to have been run to its end.
TYPES = f"""
[job.free]
python = "tests.stress.jobs:free"
settings = {{ folder = "{{folder}}" }}
then = ["follow"]
{RETRY}
[job.follow]
python = "tests.stress.point_jobs:follow"
{RETRY}
[job.reports]
python = "tests.stress.point_jobs:reports"
settings = {{ folder = "{{folder}}" }}
{RETRY}
[job.hook]
http = "{{url}}"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
body = {{ id = "id" }}
{RETRY}
[job.graph]
arguments = {{ job_id = "id" }}
parallel = 2
{RETRY}
[job.graph.steps]
a = {{ sql = "step_a" }}
b = {{ sql = "step_b", needs = ["a"] }}
c = {{ sql = "step_c" }}
d = {{ sql = "step_d", needs = ["b", "c"] }}
[job.fails]
arguments = {{ job_id = "id" }}
retry = {{ first = "10ms", max = "100ms", max_attempts = 3 }}
[job.fails.steps]
fails = {{ sql = "step_fails" }}
[job.lasts]
arguments = {{ job_id = "id" }}
{RETRY}
[job.lasts.steps]
lasts = {{ sql = "step_lasts" }}
[job.gated]
arguments = {{ job_id = "id" }}
{RETRY}
[job.gated.steps]
gated = {{ sql = "step_gated" }}
"""


@dataclass(frozen=True)
class Point:
    """One statement of the daemon.

    Attributes:
        text: found in the statement.
        job: what is enqueued so that it comes to it; none where it comes by itself.
        again: how often the job's effect outside of the database happens beyond once, by a death before, and after.
        early: it comes at the start.
        loses: the answer to this statement is lost first.
        stop: SIGTERM makes it come: when nothing is in hand, or the job runs.
    """

    name: str
    text: bytes
    job: str | None = None
    again: tuple[int, int] = (0, 0)
    early: bool = False
    loses: bytes | None = None
    stop: bool = False


POINTS = (
    Point("register", b"worker.register(", early=True),
    Point("register_backend", b"worker.register_backend(", early=True),
    Point("declare", b"worker.declare(", early=True),
    Point("claim", b"worker.claim(", "free"),
    Point("unclaim", b"worker.unclaim(", "free", loses=b"worker.claim("),
    Point("begin_steps", b"worker.begin_steps(", "graph"),
    Point("step_began", b"worker.step_began(", "lasts"),
    Point("run_step", b"worker.run_step(", "graph"),
    Point("reset of a step's connection", b"execute worker_left", "graph"),
    Point("step_failed", b"worker.step_failed(", "fails"),
    Point("stop_backend", b"worker.stop_backend(", "gated", stop=True),
    Point("progress", b"worker.progress(", "reports"),
    Point("complete", b"worker.complete(", "reports", again=(1, 0)),
    Point("settle with a follow-up", b"worker.settle(", "free", again=(1, 0)),
    Point("settle of a graph", b"worker.settle(", "graph"),
    Point("settle of a failure", b"worker.settle(", "fails"),
    Point("settle of a webhook", b"worker.settle(", "hook", again=(1, 0)),
    Point("settled", b"worker.settled(", "hook", loses=b"worker.settle("),
    Point("sleep", b"worker.sleep("),
    Point("wake", b"worker.wake(", stop=True),
    Point("beat", b"worker.beat_and_look("),
    Point("sweep", b"worker.sweep("),
    Point("declare_dead", b"worker.declare_dead("),
    Point("rescue", b"worker.rescue("),
    Point("leave", b"worker.leave(", stop=True),
)


@dataclass
class Trap:
    """Kills a daemon at a point of its conversation with the server, which goes through a proxy.

    Attributes:
        sprung: it was killed.
    """

    proxy: FaultProxy
    point: Point
    moment: str
    victim: Daemon | None = None
    sprung: asyncio.Event = field(default_factory=asyncio.Event)

    def arm(self) -> None:
        """From now on."""
        self.proxy.lose = [self.point.loses] if self.point.loses else []
        self.proxy.on_statement = self._told

    def disarm(self) -> None:
        self.proxy.on_statement, self.proxy.lose = None, []

    async def _told(self, moment: str, link: Link, text: bytes) -> bool:
        if self.sprung.is_set():
            return True  # what a dead one has sent, and what it would have been told
        if moment != self.moment or self.point.text not in text or self.victim is None:
            return False
        self.victim.send(signal.SIGKILL)
        self.sprung.set()
        return True
