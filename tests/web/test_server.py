"""The HTTP side over a real socket: what it answers, to whom, and that it stops."""

import asyncio
import signal
import socket
import threading

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.web.support import KEY, WRITER, bearer, guarded, http, served
from worker.errors import ConfigError
from worker.web import Web, server

PATHS = ("/healthz", "/readyz", "/metrics")


async def test_alive_ready_and_metrics_on_loopback() -> None:
    async with served(http()) as side:
        side.readiness.watch(lambda: True)
        answers = [await side.get(path) for path in PATHS]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert [answer.text for answer in answers[:2]] == ["ok\n", "ready\n"]
        assert all(answer.headers["cache-control"] == "no-store" for answer in answers)
        assert all("server" not in answer.headers for answer in answers)


async def test_not_ready_says_nothing_but_that() -> None:
    async with served(http()) as side:
        for checks in ((), (lambda: True, lambda: False)):
            side.readiness.watch(*checks)
            answer = await side.get("/readyz")
            assert (answer.status_code, answer.text) == (503, "not ready\n")
        side.readiness.watch(lambda: True)
        assert (await side.get("/readyz")).status_code == 200
        side.readiness.end()
        assert (await side.get("/readyz")).status_code == 503
        assert (await side.get("/healthz")).status_code == 200


async def test_prometheus_gets_what_it_asks_for() -> None:
    async with served(http()) as side:
        side.metrics.rescues.inc(3)
        plain = await side.get("/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        asked = await side.get("/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert asked.headers["content-type"].startswith("application/openmetrics-text")
        for families in (text_string_to_metric_families(plain.text), open_metrics(asked.text)):
            found = {sample.name: sample.value for family in families for sample in family.samples}
            assert found["worker_rescues_total"] == 3


async def test_beyond_loopback_a_key_is_needed() -> None:
    async with served(guarded()) as side:
        side.readiness.watch(lambda: True)
        for path, open_to_all in zip(PATHS, (True, False, False), strict=True):
            for headers, right in (({}, False), (bearer("wrong"), False), (bearer(WRITER), False), (bearer(KEY), True)):
                answer = await side.get(path, **headers)
                assert (answer.status_code == 200) == (open_to_all or right), (path, headers)


async def test_a_refusal_tells_nothing() -> None:
    async with served(guarded()) as side:
        asked = [
            await side.get("/metrics"),
            await side.get("/readyz", **bearer("wrong")),
            await side.get("/metrics", **bearer(WRITER)),
            await side.get("/no/such/path"),
            await side.get("/metrics", method="DELETE"),
        ]
        assert {(answer.status_code, answer.text) for answer in asked} == {(401, "unauthorized\n")}
        assert all(answer.headers["www-authenticate"] == "Bearer" for answer in asked)


async def test_other_paths_and_methods() -> None:
    async with served(http()) as side:
        assert [(await side.get(path)).status_code for path in ("/", "/metrics/", "/api/v1/jobs")] == [404] * 3
        posted = await side.get("/metrics", method="POST")
        assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")
        head = await side.get("/healthz", method="HEAD")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "3")


async def raw(port: int, sent: bytes) -> bytes:
    """What comes back for these bytes, until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    return await to_the_end(reader, writer, sent)


async def to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> bytes:
    """Say this on a connection, and read until the other side closes."""
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"G" * 200_000,
    ],
)
async def test_nonsense_is_refused_and_the_next_is_served(sent: bytes) -> None:
    async with served(http()) as side:
        assert (await raw(side.port, sent))[:12] in {b"HTTP/1.1 400", b""}
        assert (await side.get("/healthz")).status_code == 200


async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    async with served(http()) as side:
        assert await raw(side.port, b"") == b""
        assert await raw(side.port, b"GET /healthz HTTP/1.1\r\nHost:") == b""
        assert (await side.get("/healthz")).status_code == 200


async def again(port: int, asked: asyncio.Event) -> bytes:
    """Half a head on a connection that was answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"ok\n"), 20)
    asked.set()
    return await to_the_end(reader, writer, b"GET /healthz HTTP/1.1\r\nHost:")


async def test_half_a_head_later_on_is_let_go_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    answered = asyncio.Event()
    async with served(http()) as side:
        assert await again(side.port, answered) == b""
        assert answered.is_set()


async def test_who_waited_long_for_an_answer_may_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)
    async with served(http()) as side:
        making, begun = threading.Event(), threading.Event()
        side.metrics.running.set_function(lambda: begun.set() or float(making.wait(20)))
        asked = asyncio.create_task(side.get("/metrics"))
        assert await asyncio.to_thread(begun.wait, 20)
        assert await raw(side.port, b"") == b"", "as long as a head may take"
        making.set()
        first = await asked
        assert await raw(side.port, b"") == b"", "and so long again"
        second = await side.get("/healthz")
        assert (first.status_code, second.status_code) == (200, 200)
        ours = [answer.extensions["network_stream"].get_extra_info("client_addr") for answer in (first, second)]
        assert ours[0] == ours[1], "another connection: the first was closed"


async def test_between_requests_the_client_is_the_first_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that closes first does so under a request that is on its way."""
    assert (httpx2.Limits().keepalive_expiry or 0) < 60 < server.KEEP_SECONDS, "a balancer's minute, too"
    monkeypatch.setattr(server, "KEEP_SECONDS", 0.05)
    async with served(http()) as side:
        answer = await raw(side.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.endswith(b"ok\n"), "and then the end: it is this bound that counts"


async def test_who_takes_no_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TAKE_SECONDS", 0.05)
    async with served(http()) as side:
        with socket.create_connection(("127.0.0.1", side.port)) as greedy:
            greedy.setblocking(False)
            with pytest.raises(ConnectionError, match=r"."):
                await asyncio.wait_for(flood(greedy), 60)


async def flood(greedy: socket.socket) -> None:
    """Ask for ever, and read no answer."""
    while True:
        await asyncio.get_running_loop().sock_sendall(greedy, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 100)


async def test_a_crowd_does_not_take_all_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    async with served(http()) as side:
        held = [await asyncio.open_connection("127.0.0.1", side.port) for _ in range(3)]
        assert (await side.get("/healthz")).status_code == 200  # in the place of the one that is silent for longest
        assert await asyncio.wait_for(held[0][0].read(), 20) == b""
        for _, writer in held:
            writer.close()


async def test_who_is_owed_an_answer_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 1)
    async with served(http()) as side:
        _, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        making = threading.Event()
        side.metrics.running.set_function(lambda: float(making.wait(20)))
        begun = threading.Event()
        side.metrics.slots.set_function(lambda: begun.set() or 1.0)
        assert await asyncio.to_thread(begun.wait, 20)
        assert await raw(side.port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n") == b""
        making.set()
        writer.close()


async def test_it_stops_with_a_connection_open_and_leaves_the_signals_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with served(http()) as side:
        await side.get("/healthz")
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(b"GET /hea")
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", side.port)


def test_an_address_that_is_taken_is_a_fault_of_the_configuration() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"http\.listen: cannot listen on 127\.0\.0\.1:{port}: .*in use"):
            Web(http(f"127.0.0.1:{port}"))


def test_a_name_that_is_no_address_is_a_fault_too() -> None:
    with pytest.raises(ConfigError, match=r"http\.listen: cannot listen"):
        Web(http("no-such-host.invalid:9464"))
