"""D.7: receivers of outgoing calls that hang, drown, lie and point elsewhere; kills around a call."""

import asyncio
import contextlib
from collections.abc import Mapping

from tests.heart import becomes
from tests.processes import Daemon
from tests.stress.experiment import Report, experiment
from tests.stress.fault_proxy import Link, faulty
from tests.stress.place import COMPRESSED, Place
from tests.stress.receivers import HEAD, MANNERS, Caller, Manner, never_accepting, receiving, said
from tests.stress.workload import FREE, produce_free
from worker.demo.receiver import Receiver

CALL_SECONDS = 4.0
SLACK_SECONDS = 1.5  # beyond the call's timeout, to the settled row
MOST_GROWTH = 60.0  # MB of the daemon, through all that is poured into it
SETTLE_SECONDS = 60.0
ONCE = "retry = { max_attempts = 1 }"
# From its last start: by the tenth time a receiver's breaker may be open, and the job is snoozed first.
DURATIONS = """
    select j.job_type, j.status, j.errors ->> 0 as error,
      extract(epoch from h.at - (select max(s.at) from evidence.hist s
                                 where s.job_id = j.id and s.new_status = 'running'))::float8 as seconds
    from worker.job_queue j
    join evidence.hist h on h.job_id = j.id and h.new_status in ('completed', 'failed')
    where j.job_type <> 'free' order by seconds desc
"""


def types(ports: Mapping[str, str], more: str = "") -> str:
    """A job type for each address."""
    return "".join(
        f'[job.{name}]\nhttp = "{url}"\ntimeout = "{CALL_SECONDS:g}s"\n{ONCE}\n{more}\n' for name, url in ports.items()
    )


@experiment("64-hostile-receivers", fast=46, nightly=230, quiet=True)
async def hostile_receivers(place: Place, report: Report) -> None:
    """Calls to receivers that hang, drip, never stop, send a bomb or no HTTP: each ends in time, others go on."""
    async with contextlib.AsyncExitStack() as stack:
        urls = {
            name: f"http://127.0.0.1:{await stack.enter_async_context(receiving(manner))}/"
            for name, (manner, _) in MANNERS.items()
        }
        urls["never_accepts"] = f"http://127.0.0.1:{stack.enter_context(never_accepting())}/"
        urls["no_tls"] = urls["http_0_9"].replace("http:", "https:")
        worker = COMPRESSED.replace("concurrency = 8", "concurrency = 16")
        await place.started(place.spawn(place.configure(types(urls) + FREE, worker=worker)))
        await produce_free(place, 50)
        await place.settled(SETTLE_SECONDS)
        before = max(place.memory().values())
        for _ in range(report.planned // len(urls)):
            await place.connection.execute("select worker.enqueue(t) from unnest($1::text[]) t", list(urls))
            await produce_free(place, 50)
            report.expect(await place.settled(SETTLE_SECONDS), "jobs are not final")
            report.injected += len(urls)
        grown = max(place.memory().values()) - before
    await _judge_calls(report, place, grown)
    await place.judge(report)


async def _judge_calls(report: Report, place: Place, grown: float) -> None:
    found = await place.connection.fetch(DURATIONS)
    slowest: dict[str, float] = {}
    for row in found:
        name = row["job_type"]
        slowest[name] = max(slowest.get(name, 0.0), row["seconds"])
        answered = MANNERS[name][1] if name in MANNERS else False
        wanted = "completed" if answered else "failed"
        report.expect(row["status"] == wanted, f"{name}: {row['status']}, {row['error']}")
    most = (CALL_SECONDS + SLACK_SECONDS) * report.slack
    late = {name: seconds for name, seconds in slowest.items() if seconds > most}
    report.expect(not late, f"past their timeout of {CALL_SECONDS:g} s: {late}")
    report.figures["slowest_s"] = {name: round(slowest[name], 2) for name in list(slowest)[:4]}
    report.figures["grown_mb"] = round(grown, 1)
    report.expect(grown < MOST_GROWTH, f"the daemon grew by {grown:.0f} MB")
    free = "select count(*) from worker.job_queue where job_type = 'free' and status <> 'completed'"
    report.expect(await place.connection.fetchval(free) == 0, "jobs beside did not complete")


@experiment("66-redirects", fast=30, nightly=30, quiet=True)
async def redirects(place: Place, report: Report) -> None:
    """Answers that point to a decoy, by every 3xx and every kind of address: it hears nothing."""
    heard: list[bytes] = []

    async def decoy(caller: Caller) -> None:
        heard.append(await caller.reader.read(100))

    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(receiving(decoy))
        places = [f"http://127.0.0.1:{port}/", f"//127.0.0.1:{port}/", f"http://[::ffff:127.0.0.1]:{port}/",
                  f"http://a@127.0.0.1:{port}/", "file:///etc/passwd"]  # fmt: skip
        urls = {}
        for status in (300, 301, 302, 303, 307, 308):
            for number, to in enumerate(places):
                manner = _pointing(status, to)
                own = await stack.enter_async_context(receiving(manner))
                urls[f"redirect_{status}_{number}"] = f"http://127.0.0.1:{own}/"
        await place.started(place.spawn(place.configure(types(urls))))
        await place.connection.execute("select worker.enqueue(t) from unnest($1::text[]) t", list(urls))
        report.expect(await place.settled(SETTLE_SECONDS), "jobs are not final")
        report.injected = len(urls)
    failed = await place.connection.fetchval(
        "select count(*) from worker.job_queue where status = 'failed' and errors ->> 0 like '%answered 3%'"
    )
    report.expect(failed == len(urls), f"{failed} of {len(urls)} failed with their status")
    report.figures["heard_by_the_decoy"] = len(heard)
    report.expect(not heard, f"the decoy heard {heard[:2]}")
    await place.judge(report)


def _pointing(status: int, to: str) -> Manner:
    refresh = f"refresh: 0; url={to}\r\nlink: <{to}>; rel=preload\r\ncontent-length: 0\r\n\r\n"
    return said(HEAD.replace(b"200 OK", b"%d Go" % status) + f"location: {to}\r\n{refresh}".encode())


MARKED = """
[job.call]
http = "{url}"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
retry = {{ first = "10ms", max = "50ms", max_attempts = 100 }}
"""


@experiment("67-kill-around-a-call", fast=2, nightly=20, quiet=True)
async def kill_around_a_call(place: Place, report: Report) -> None:
    """kill -9 after the claim and before the call, and after its answer and before the mark: delivered, the same id."""
    async with Receiver() as receiver, faulty(place.dsn) as proxy:
        config = place.configure(MARKED.format(url=receiver.url))
        for number in range(report.planned):
            victim = place.spawn(config, dsn=proxy.dsn)
            await place.started(victim)
            strike = Strike(place, victim, b"worker.claim(" if number % 2 else b"worker.settle(")
            proxy.on_statement = strike
            await place.connection.execute("""select worker.enqueue('call', '{"tags": ["a"], "source": "s"}')""")
            await becomes(strike.done.is_set, 20)
            proxy.on_statement = None
            report.injected += 1
            await place.started(place.spawn(config))
            report.expect(await place.settled(SETTLE_SECONDS), "jobs are not final")
            await place.stopped()
    ids = [call.headers["webhook-id"] for call in receiver.calls]
    report.figures["delivered"] = len(set(ids))
    report.duplicates = len(ids) - len(set(ids))
    report.expect(len(set(ids)) == report.planned, f"{len(set(ids))} ids for {report.planned} calls")
    wanted = report.planned // 2
    report.expect(report.duplicates <= wanted, f"{report.duplicates} calls more, not one for each kill before the mark")
    await place.judge(report)


class Strike:
    """Kills a daemon when the claim that brought a job is committed and unheard, or before its settle is run."""

    def __init__(self, place: Place, victim: Daemon, text: bytes) -> None:
        self._place = place
        self._victim = victim
        self._text = text
        self.done = asyncio.Event()

    async def __call__(self, when: str, link: Link, statement: bytes) -> bool:
        """Told of each statement by the proxy."""
        claims = b"claim" in self._text
        aimed = self._text in statement and when == ("after" if claims else "before")
        if aimed and not self.done.is_set() and (not claims or await self._claimed()):
            self._place.kill(self._victim)
            self.done.set()
        return self.done.is_set()

    async def _claimed(self) -> bool:
        running = "select exists (select from worker.job_queue where status = 'running')"
        return bool(await self._place.connection.fetchval(running))
