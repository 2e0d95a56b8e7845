"""D.7: one receiver of many is down, with thousands of calls for it: the others do not notice, and it gets its own."""

import asyncio
import time
from contextlib import AsyncExitStack

import httpx2

from tests.heart import becomes, until
from tests.stress.experiment import Report, experiment
from tests.stress.place import COMPRESSED, Place
from tests.stress.receivers import Caller, receiving
from tests.support import free_port
from worker.demo.receiver import Receiver, Reply

OTHERS = 9
CALLS = 6_000  # to the one, and to the nine together
DOWN_SECONDS = 35.0
SLOWEST = 4.0  # times what the others took without the outage, and the first stall
STALL_SECONDS = 25.0  # until the breaker knows; compressed, a call that hangs takes 2 s, and ten seconds must pass
DRAIN_SECONDS = 180.0
WORKER = COMPRESSED.replace("concurrency = 8", "concurrency = 20").replace("prefetch = 8", "prefetch = 40")
CALL = '[job.{name}]\nhttp = "{url}"\ntimeout = "2s"\nretry = {{ first = "1s", max = "10s", max_attempts = 20 }}\n'
OF_OTHERS = "select count(*) from worker.job_queue where job_type <> 'dead' and status in ('pending', 'running')"


class Yes(Receiver):
    """Takes whatever comes, and notes when."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []

    def _answer(self, call: object) -> Reply:
        self.at.append(time.monotonic())
        return Reply(204)


class Turning:
    """Silent until it is up; then it answers."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.ids: list[str] = []
        self.at: list[float] = []
        self.tried: list[float] = []

    async def __call__(self, caller: Caller) -> None:
        while True:
            head = await caller.asked()
            await caller.reader.readexactly(_length(head))
            self.tried.append(time.monotonic())
            if not self.up.is_set():
                await asyncio.Event().wait()
            self.ids.append(_header(head, "webhook-id"))
            self.at.append(time.monotonic())
            await caller.say(b"HTTP/1.1 204 No\r\n\r\n")


@experiment("70-one-receiver-down", nightly=1, limit=400)
async def one_receiver_down(place: Place, report: Report) -> None:
    """A receiver hangs for 35 s under 6,000 calls, nine others get 6,000: theirs go on, its own arrive afterwards."""
    turning, port = Turning(), free_port()
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(Yes()) for _ in range(OTHERS)]
        urls = {f"fine_{n}": each.url for n, each in enumerate(others)}
        urls["dead"] = f"http://127.0.0.1:{await stack.enter_async_context(receiving(turning))}/"
        jobs = "".join(CALL.format(name=name, url=url) for name, url in urls.items())
        config = place.configure(f'[http]\nlisten = "127.0.0.1:{port}"\n{jobs}', worker=WORKER)
        await place.started(place.spawn(config))
        alone = await _others(place, CALLS)
        began = time.monotonic()
        await _enqueue(place, "dead", CALLS)
        beside = await _others(place, CALLS)
        report.figures |= {"others_alone_s": round(alone, 1), "others_beside_s": round(beside, 1)}
        limit = SLOWEST * alone + STALL_SECONDS
        report.expect(beside < limit, f"calls to others took {beside:.1f} s, {alone:.1f} s without the outage")
        await asyncio.sleep(max(DOWN_SECONDS - (time.monotonic() - began), 0))
        await _while_down(place, report, turning, port)
        turning.up.set()
        healed = time.monotonic()
        report.injected = 1
        report.expect(await place.settled(DRAIN_SECONDS), f"calls are not delivered {DRAIN_SECONDS:g} s after the end")
        report.recovery.append(turning.at[0] - healed)
        _after(report, turning, healed)
        await place.judge(report)
    report.figures["snoozes"] = await place.connection.fetchval("select sum(snoozes) from worker.job_queue")
    failed = await place.connection.fetchval("select count(*) from worker.job_queue where status <> 'completed'")
    report.expect(failed == 0, f"{failed} calls gave up")


async def _enqueue(place: Place, job_type: str, count: int) -> None:
    await place.connection.execute("select worker.enqueue($1) from generate_series(1, $2)", job_type, count)


async def _others(place: Place, count: int) -> float:
    """Seconds that so many calls to the receivers that are up take."""
    began = time.monotonic()
    for number in range(OTHERS):
        await _enqueue(place, f"fine_{number}", count // OTHERS)
    await until(place.connection, f"select ({OF_OTHERS}) = 0", seconds=DRAIN_SECONDS)
    return time.monotonic() - began


async def _while_down(place: Place, report: Report, turning: Turning, port: int) -> None:
    """What the outage has cost so far, and whether it can be seen."""
    attempts = await place.connection.fetchval("select sum(attempt) from worker.job_queue where job_type = 'dead'")
    lost = await place.connection.fetchval(
        "select count(*) from worker.job_queue where job_type = 'dead' and status not in ('pending', 'running')"
    )
    report.figures |= {"calls_to_the_dead": len(turning.tried), "attempts_of_the_dead": attempts}
    report.expect(lost == 0, f"{lost} jobs of the dead receiver ended while it was down")
    report.expect(len(turning.tried) < 300, f"the dead receiver was called {len(turning.tried)} times")
    await becomes(lambda: 'worker_breaker_open{job_type="dead"} 1.0' in _page(port), 10)
    report.expect('worker_breaker_open{job_type="fine_0"} 0.0' in _page(port), "another's breaker is open")
    report.expect(place.count_said('"breaker.opened"') == 1, "the log does not say once that the breaker opened")


def _after(report: Report, turning: Turning, healed: float) -> None:
    """How what had piled up arrived."""
    seconds: dict[int, int] = {}
    for at in turning.at:
        seconds[int(at - healed)] = seconds.get(int(at - healed), 0) + 1
    report.figures |= {
        "drained_after_s": round(turning.at[-1] - healed, 1),
        "busiest_second": max(seconds.values()),
    }
    again = len(turning.ids) - len(set(turning.ids))
    report.duplicates = again
    report.expect(len(set(turning.ids)) == CALLS, f"{len(set(turning.ids))} of {CALLS} arrived")


def _page(port: int) -> str:
    return httpx2.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text


def _header(head: bytes, name: str) -> str:
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n"))
    return next((value.strip() for key, _, value in lines if key.lower() == name), "")


def _length(head: bytes) -> int:
    return int(_header(head, "content-length") or 0)
