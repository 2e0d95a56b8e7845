"""When calls to an endpoint are held back, who goes to see, and what its jobs are told; the clock is ours."""

import asyncio
from contextlib import suppress

import pytest

from tests.heart import configured, job
from worker.breaker import FAILING_SECONDS, FAILURES, MOST_REST_SECONDS, REST_SECONDS, Breakers, Held, endpoint
from worker.context import Context
from worker.handlers import endpoint as handler
from worker.metrics import Metrics
from worker.outbound import Answer, OutboundError, RefusedAddress, Request, TooSlow, Unreachable
from worker.outcome import Completed, Retried, Snoozed
from worker.report import Reporter

URL, OTHER = "http://dead.example/a", "http://fine.example/a"
NOBODY = [Unreachable("no"), TooSlow("no"), 502, 503, 504]


class Receivers:
    """Answers by host; moves the clock by what each call takes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.answers: dict[str, object] = {}
        self.took = 1.0
        self.calls: list[str] = []
        self.gate: asyncio.Event | None = None

    def clock(self) -> float:
        return self.now

    async def send(self, request: Request) -> Answer:
        self.calls.append(request.url)
        if self.gate is not None:
            await self.gate.wait()
        self.now += self.took
        came = self.answers.get(request.url.split("/")[2], 200)
        if isinstance(came, Exception):
            raise came
        return Answer(came, {}, b"")


@pytest.fixture
def receivers():
    return Receivers()


@pytest.fixture
def told():
    return []


@pytest.fixture
def breakers(receivers, told):
    return Breakers(receivers, lambda *said: told.append(said), receivers.clock)


async def call(breakers, url=URL, **about):
    """The status, or the error that came instead."""
    try:
        return (await breakers.send(Request("POST", url, **about))).status
    except OutboundError as error:
        return error
    except Held as held:
        return held


async def opened(breakers, receivers):
    receivers.answers["dead.example"] = Unreachable("no")
    for _ in range(max(FAILURES, int(FAILING_SECONDS))):
        assert not isinstance(await call(breakers), Held)
    assert isinstance(await call(breakers), Held)


@pytest.mark.parametrize("nobody", NOBODY, ids=str)
async def test_it_opens_when_nobody_answers_and_then_nothing_is_sent(breakers, receivers, told, nobody):
    receivers.answers["dead.example"] = nobody
    for _ in range(FAILURES):
        assert await call(breakers) is nobody
    assert told == [("http://dead.example:80", True)]
    held = [await call(breakers) for _ in range(50)]
    assert len(receivers.calls) == FAILURES
    assert all(isinstance(each, Held) and REST_SECONDS <= each.delay <= 2 * REST_SECONDS for each in held)
    assert len({each.delay for each in held}) > 40  # spread
    assert await call(breakers, OTHER) == 200


@pytest.mark.parametrize("somebody", [200, 301, 404, 410, 429, 500, 501])
async def test_any_answer_is_somebodys(breakers, receivers, told, somebody):
    receivers.answers["dead.example"] = Unreachable("no")
    for _ in range(3):
        for _ in range(FAILURES - 1):
            await call(breakers)
        receivers.answers["dead.example"] = somebody
        assert await call(breakers) == somebody
        receivers.answers["dead.example"] = Unreachable("no")
    assert told == []


async def test_a_short_absence_does_not_open_it(breakers, receivers, told):
    receivers.took = FAILING_SECONDS / 1000
    receivers.answers["dead.example"] = Unreachable("no")
    for _ in range(500):
        await call(breakers)
    assert told == []
    receivers.took = FAILING_SECONDS
    await call(breakers)
    assert told == [("http://dead.example:80", True)]


async def test_what_says_nothing_about_the_receiver_changes_nothing(breakers, receivers, told):
    receivers.answers["dead.example"] = RefusedAddress("no")
    for _ in range(5 * FAILURES):
        assert isinstance(await call(breakers), RefusedAddress)
    assert told == []


async def test_calls_that_began_together_open_it_when_their_time_is_over(breakers, receivers, told):
    """All wait in slots; the first call's beginning counts, not the moment of the first failure."""
    receivers.answers["dead.example"], receivers.took = TooSlow("no"), 0.0
    receivers.gate = asyncio.Event()
    calls = [asyncio.create_task(call(breakers)) for _ in range(FAILURES)]
    await asyncio.sleep(0)
    receivers.now += 15
    receivers.gate.set()
    await asyncio.gather(*calls)
    assert told == [("http://dead.example:80", True)]


async def test_one_call_goes_to_see_and_the_rest_grows(breakers, receivers, told):
    await opened(breakers, receivers)
    receivers.took, rests = 0.0, []
    for _ in range(6):
        before = len(receivers.calls)
        receivers.gate = asyncio.Event()
        while not len(receivers.calls) > before:
            receivers.now += 0.5
            look = asyncio.create_task(call(breakers))
            await asyncio.sleep(0)
        assert isinstance(await call(breakers), Held)  # while somebody is on the way
        receivers.gate.set()
        assert isinstance(await look, Unreachable)
        receivers.gate, since = None, receivers.now
        while isinstance(await call(breakers), Held):
            receivers.now += 0.5
        rests.append(receivers.now - since)
    assert rests[:2] == pytest.approx([2 * REST_SECONDS, MOST_REST_SECONDS], abs=1)
    assert max(rests) <= MOST_REST_SECONDS + 0.5
    assert told == [("http://dead.example:80", True)]


async def test_an_answer_closes_it_and_the_next_failure_counts_from_one(breakers, receivers, told):
    await opened(breakers, receivers)
    receivers.now += REST_SECONDS
    receivers.answers["dead.example"] = 200
    assert [await call(breakers) for _ in range(3)] == [200] * 3
    assert told[1:] == [("http://dead.example:80", False)]
    receivers.answers["dead.example"] = 503
    assert [await call(breakers) for _ in range(FAILURES - 1)] == [503] * (FAILURES - 1)
    assert len(told) == 2


async def test_a_look_that_is_called_off_leaves_the_next_one_free(breakers, receivers):
    await opened(breakers, receivers)
    receivers.now += REST_SECONDS
    receivers.gate = asyncio.Event()
    look = asyncio.create_task(call(breakers))
    await asyncio.sleep(0)
    look.cancel()
    with suppress(asyncio.CancelledError):
        await look
    receivers.gate = None
    assert isinstance(await call(breakers), Unreachable)


async def test_a_call_whose_attempt_ran_out_first_counts_and_one_that_was_stopped_does_not(breakers, receivers, told):
    async def called_off(after: float) -> None:
        receivers.gate = asyncio.Event()
        calls = [asyncio.create_task(call(breakers, timeout=10.0)) for _ in range(FAILURES)]
        await asyncio.sleep(0)
        receivers.now += after
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    await called_off(5.0)
    assert told == []
    await called_off(9.99)
    assert told == []  # not quite ten seconds
    await called_off(9.99)
    assert told == [("http://dead.example:80", True)]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://a/b?c", "http://a:80"),
        ("https://A.example/", "https://a.example:443"),
        ("https://a:8443/x/y", "https://a:8443"),
        ("http://[::1]:9/", "http://[::1]:9"),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(url, name):
    assert endpoint(url) == name


async def test_jobs_of_a_silent_endpoint_are_snoozed_uncounted_and_keep_their_steps(breakers, receivers, tmp_path):
    config = configured(
        tmp_path, "postgresql://unused",
        f"[job.call]\nhttp = '{URL}'\n[job.off]\npython = 'tests.sample_jobs:echo'\nfallback = '{URL}'\n",
    )  # fmt: skip
    run = handler.build(config.job["call"], breakers)
    off = handler.build_fallback(config.job["off"], breakers)
    await opened(breakers, receivers)
    for work, name in ((run, "call"), (off, "off")):
        (outcome,) = await work(Context([job(job_type=name)], {}, None, None))
        assert isinstance(outcome, Snoozed)
        assert outcome.keep_steps
        assert outcome.delay > 0
    receivers.now += REST_SECONDS
    (looked,) = await run(Context([job(job_type="call")], {}, None, None))
    assert isinstance(looked, Retried)
    receivers.now += MOST_REST_SECONDS
    receivers.answers.clear()
    assert isinstance((await run(Context([job(job_type="call")], {}, None, None)))[0], Completed)


def test_what_is_told(tmp_path):
    config = configured(
        tmp_path, "postgresql://unused",
        f"[job.a]\nhttp = '{URL}'\n[job.b]\nhttp = '{OTHER}'\n"
        f"[job.c]\npython = 'tests.sample_jobs:echo'\nfallback = '{URL}'\n[job.d]\npython = 'tests.sample_jobs:echo'\n",
    )  # fmt: skip
    metrics = Metrics.of(config, "1")
    reporter = Reporter(metrics, config.job, 1.0)

    def shown():
        values = {name: metrics.registry.get_sample_value("worker_breaker_open", {"job_type": name}) for name in "abcd"}
        return [values[name] for name in "abcd"]

    assert shown() == [0, 0, 0, None]
    reporter.breaker(endpoint(URL), True)
    assert shown() == [1, 0, 1, None]
    reporter.call(job(job_type="a"), [Snoozed(1.0)])
    assert metrics.registry.get_sample_value("worker_outbound_total", {"job_type": "a", "result": "failed"}) == 0
    reporter.breaker(endpoint(URL), False)
    assert shown() == [0, 0, 0, None]
