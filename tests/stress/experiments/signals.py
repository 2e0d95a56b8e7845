"""D.1: SIGTERM in whatever a daemon is doing, a second one, and what ignores both."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from tests.heart import becomes, until
from tests.stress.experiment import Report, experiment
from tests.stress.jobs import lines
from tests.stress.place import Place
from tests.stress.rude_jobs import ALIVE
from tests.stress.stage import QUICK, Stage, staged

AT_ONCE = 4
HELD = 0.3
END = 8.0  # what the daemon gives a cancelled handler
STEP = '[job.{name}]\narguments = {{ job_id = "id" }}\n[job.{name}.steps]\nlong = {{ sql = "long_step" }}'
HOOK = '[job.{name}]\nhttp = "{url}"\nsecrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]\nbody = {{ id = "id" }}'
BYSTANDER = '[job.bystander]\npython = "tests.stress.jobs:free"'  # rescues what a dead one leaves
CLAIM = b"worker.claim("
SETTLE = b"worker.settle("
STEP_RUNS = "select exists (select from worker.job_step where job_id = $1 and status = 'running')"
PENDING = "select status = 'pending' from worker.job_queue where id = $1"


async def idle(stage: Stage) -> None:
    await stage.start()
    await stage.stop(QUICK)


async def at_the_start(stage: Stage) -> None:
    stage.proxy.refusing = True
    await stage.start(wait=False)
    await becomes(lambda: "database.waiting" in stage.daemon.said())
    await stage.stop(QUICK)


async def midway(stage: Stage, text: bytes, moment: str) -> int:
    """In the middle of a statement about one job; answers with it."""
    await stage.start()
    stage.hold(text)
    if text == CLAIM:
        await stage.reached("before")  # which looks for nothing so far
    job_id = await stage.enqueue()
    await stage.reached("before")
    if moment == "after":
        stage.open("before")
        await stage.reached("after")
    await stage.stop(QUICK, HELD)
    return job_id


async def mid_claim(stage: Stage, moment: str) -> None:
    await stage.became(await midway(stage, CLAIM, moment), "pending", 0)


async def mid_completion(stage: Stage, moment: str) -> None:
    await stage.became(await midway(stage, SETTLE, moment), "completed", 1)


async def handler_ends(stage: Stage) -> None:
    await stage.start()
    job_id = await stage.running(700)
    await stage.stop(QUICK)
    await stage.became(job_id, "completed", 1)


async def handler_stays(stage: Stage) -> None:
    await stage.start(grace="500ms")
    job_id = await stage.running(60_000)
    await stage.stop(0.5 + QUICK)
    await stage.became(job_id, "pending", 0)


async def step_stays(stage: Stage) -> None:
    await stage.start(STEP, grace="500ms")
    job_id = await stage.enqueue()
    await until(stage.connection, STEP_RUNS, job_id)
    await stage.stop(0.5 + QUICK)
    await stage.became(job_id, "pending", 0)


async def webhook_ends(stage: Stage) -> None:
    stage.box.seconds = 0.7
    await stage.start(HOOK)
    job_id = await stage.enqueue()
    await becomes(lambda: stage.box.began)
    await stage.stop(QUICK)
    await stage.became(job_id, "completed", 1)
    stage.expect(sum(stage.box.receipts.values()) == 1, f"receipts: {dict(stage.box.receipts)}")


async def webhook_stays(stage: Stage) -> None:
    stage.box.seconds = 60
    await stage.start(HOOK, grace="500ms")
    job_id = await stage.enqueue()
    await becomes(lambda: stage.box.began)
    await stage.stop(0.5 + QUICK)
    await stage.became(job_id, "pending", 0)


async def down(stage: Stage) -> None:
    """The database is away and nothing is in hand."""
    await stage.start()
    stage.proxy.refusing = True
    stage.proxy.cut()
    await asyncio.sleep(0.5)
    await stage.stop(QUICK)


async def down_in_hand(stage: Stage) -> None:
    """Nor can what is in hand be handed back: the others find it, as if the daemon had died."""
    await stage.start(grace="500ms")
    job_id = await stage.running(60_000)
    stage.proxy.refusing = True
    stage.proxy.cut()
    await stage.stop(0.5 + 2 * QUICK)
    await until(stage.connection, PENDING, job_id)
    await stage.became(job_id, "pending", 1)


async def unanswered(stage: Stage) -> None:
    """Everything that the daemon says goes nowhere, and nothing is closed."""
    await stage.start(grace="500ms")
    job_id = await stage.running(60_000)
    stage.proxy.hold()
    await stage.stop(0.5 + 4 * QUICK)
    stage.proxy.cut()
    await until(stage.connection, PENDING, job_id)
    await stage.became(job_id, "pending", 1)


PHASES: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "idle": idle,
    "at_the_start": at_the_start,
    "before_claim": lambda stage: mid_claim(stage, "before"),
    "after_claim": lambda stage: mid_claim(stage, "after"),
    "handler_ends": handler_ends,
    "handler_stays": handler_stays,
    "step_stays": step_stays,
    "before_settle": lambda stage: mid_completion(stage, "before"),
    "after_settle": lambda stage: mid_completion(stage, "after"),
    "webhook_ends": webhook_ends,
    "webhook_stays": webhook_stays,
    "down": down,
    "down_in_hand": down_in_hand,
    "unanswered": unanswered,
}  # fmt: skip


async def second_signal(stage: Stage) -> None:
    await stage.start(grace="10m")
    job_id = await stage.running(60_000)
    stage.daemon.send(signal.SIGTERM)
    await becomes(lambda: "service.draining" in stage.daemon.said())
    await stage.stop(QUICK)
    await stage.became(job_id, "pending", 0)


async def ignored(stage: Stage, target: str, within: float) -> None:
    """The handler takes no notice of its cancellation; another daemon runs the job again as soon as it may."""
    await stage.start(target=f"tests.stress.rude_jobs:{target}", grace="500ms")
    job_id = await stage.running(60_000)
    first, _ = stage.daemon, await stage.start(target=f"tests.stress.rude_jobs:{target}", grace="0s")
    second, stage.daemon = stage.daemon, first
    await stage.stop(within)
    await again(stage, job_id)
    await stage.became(job_id, "running", 1)
    second.kill()


async def killed(stage: Stage) -> None:
    """SIGKILL at the end of the grace, as a supervisor sends it."""
    await stage.start(target="tests.stress.rude_jobs:stubborn", grace="500ms")
    job_id = await stage.running(60_000)
    first, _ = stage.daemon, await stage.start(target="tests.stress.rude_jobs:stubborn", grace="0s")
    first.send(signal.SIGTERM)
    await asyncio.sleep(0.5 + HELD)
    stage.report.injected += 1
    stage.place.kill(first)
    await again(stage, job_id)
    await stage.became(job_id, "running", 2)
    stage.daemon.kill()


async def again(stage: Stage, job_id: int) -> None:
    """Wait for the second run of a job; how long the first went on beside it is a figure."""

    def runs() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for job, claim, at in lines(stage.place.folder, ALIVE):
            if int(job) == job_id:
                found.setdefault(claim, []).append(float(at))
        return found

    await becomes(lambda: len(runs()) >= 2)  # a slow machine may fence the second as well
    first, second = list(runs().values())[:2]
    stage.report.figures[f"{stage.name}_overlap_s"] = round(max(max(first) - min(second), 0.0), 2)


IGNORED: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "second_signal": second_signal,
    "stubborn": lambda stage: ignored(stage, "stubborn", 0.5 + END + QUICK),
    "threaded": lambda stage: ignored(stage, "threaded", 0.5 + QUICK),
    "killed": killed,
}


async def conducted(place: Place, report: Report, stages: dict[str, Callable[[Stage], Awaitable[None]]]) -> None:
    """All of them, some at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def conduct(name: str) -> None:
        async with turn, staged(place, report, name) as stage:
            try:
                await stages[name](stage)
            except (TimeoutError, AssertionError) as error:
                stage.expect(False, f"{type(error).__name__}: {error}")
                await stage.cleared()

    await place.started(place.spawn(place.configure(BYSTANDER)))
    await asyncio.gather(*map(conduct, stages))


@experiment("2-sigterm", fast=len(PHASES), quiet=True)
async def sigterm(place: Place, report: Report) -> None:
    """SIGTERM in each phase: it ends with 0 within its grace, and what it does not finish goes back uncounted."""
    await place.connection.execute(
        "create function long_step(job_id bigint) returns void language sql as"
        " $$ select evidence.step(job_id, 'long', 600) $$"
    )
    await conducted(place, report, PHASES)
    await place.judge(report)


@experiment("3-ignored-stops", fast=len(IGNORED), quiet=True)
async def ignored_stops(place: Place, report: Report) -> None:
    """A second SIGTERM, handlers that ignore their cancellation, SIGKILL at the end of the grace."""
    await conducted(place, report, IGNORED)
    await place.settled(20)
    await place.judge(report)
