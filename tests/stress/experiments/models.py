"""D.9: models of the contract at length, and the history of whole runs."""

import asyncio
import signal

from tests.stress.experiment import Report, experiment
from tests.stress.history import listen, wrongs
from tests.stress.inbox import inbox
from tests.stress.place import Place
from tests.stress.postgres import FREE_JOBS, GRAPH_JOBS, KEYED_JOBS, end_sessions, stocked
from tests.stress.witness import Witness
from tests.stress.workload import FREE, MIXED, account, create_steps

# A coroutine, followed by a call that says which job it is of.
FOLLOWED = (
    FREE.replace("[job.free]", "[job.followed]")
    + """
then = ["told"]
[job.told]
http = "{url}"
body = { id = "{id}" }
retry = { first = "10ms", max = "100ms", max_attempts = 100 }
"""
)
FOLLOWED_JOBS = """select worker.enqueue('followed', '{"ms": 5}') from generate_series(1, 10)"""
EXAMPLES = 100
STEPS = 40
SETTLE_SECONDS = 90.0
STOPPED_SECONDS = 1.5  # beyond its fence, within its lease: what it held is its own still


@experiment("83-state-machine", quiet=True, nightly=15_000)
async def state_machine(place: Place, report: Report) -> None:
    """Random calls of the SQL against a model in Python; each fault is a call, and the seeds are counted up."""
    from tests.sql.test_state_machine import explore  # needs hypothesis, which a machine without the tests has not

    seed = place.chance.randrange(2**31)
    report.figures["first_seed"] = seed
    while report.injected < report.planned:
        report.injected += await asyncio.to_thread(explore, place.dsn, EXAMPLES, seed, STEPS)
        seed += 1
    report.figures["last_seed"] = seed - 1
    report.figures["calls"] = report.injected


@experiment("86-history", own_server=True, nightly=60)
async def history(place: Place, report: Report) -> None:
    """Daemons are killed, stopped and cut off; then each call that the server logged is held against the rows."""
    await listen(place.connection)
    await create_steps(place)
    witness = Witness()
    async with inbox() as box:
        config = place.configure(MIXED + FOLLOWED.replace("{url}", box.url))
        await place.started(*[place.spawn(config) for _ in range(4)])
        async with stocked(place, 200, FREE_JOBS, GRAPH_JOBS, KEYED_JOBS, FOLLOWED_JOBS):
            for number in range(report.planned):
                await asyncio.sleep(0.5 * place.chance.uniform(0.5, 1.5))
                await _fault(place, number)
                if len([each for each in place.daemons if each.process.poll() is None]) < 4:
                    place.spawn(config)
                witness.look(each.pid for each in place.alive())
                report.injected += 1
        await asyncio.sleep(STOPPED_SECONDS)
        report.expect(await place.settled(SETTLE_SECONDS), f"jobs are not final after {SETTLE_SECONDS:g} s")
        await box.tell(place.connection, "told")
    await witness.tell(place.connection)
    report.figures["calls_beyond_one"] = box.receipts.total() - len(box.receipts)
    await place.judge(report)
    await account(place, report)
    looked_at, wrong = await wrongs(place.connection, place.server.data / "server.log")
    report.figures["calls_looked_at"] = looked_at
    report.expect(looked_at > report.planned * 50, f"only {looked_at} calls were logged")
    report.faults += wrong[:10]


async def _fault(place: Place, number: int) -> None:
    """In turn: a death, a pause, the end of every session of a duty."""
    alive = place.alive()
    if number % 3 == 0 and len(alive) > 1:
        place.kill(place.chance.choice(alive))
    elif number % 3 == 1 and alive:
        stopped = place.chance.choice(alive)
        stopped.send(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(STOPPED_SECONDS, stopped.send, signal.SIGCONT)
    else:
        duty = place.chance.choice(["control", "step", "beat"])
        if duty == "beat":  # of one that is stopped it is the only sign of life, which nobody could do without
            await asyncio.sleep(STOPPED_SECONDS)
        await end_sessions(place, duty)
