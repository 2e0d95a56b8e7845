"""One outgoing request against real servers on loopback: bounds, addresses, signatures, what errors say."""

import asyncio
import gzip
import ipaddress
import shutil
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager, suppress

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from worker.addresses import Policy
from worker.demo.receiver import Receiver, Reply
from worker.outbound import (
    READ_BYTES,
    NoConnection,
    Outbound,
    OutboundError,
    RefusedAddress,
    Request,
    TooLarge,
    TooSlow,
    Unreachable,
)

NEW, OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
SOON = 0.3  # the timeout of requests that are never answered


@pytest.fixture
async def outbound():
    made = Outbound()
    yield made
    await made.close()


@pytest.fixture
async def receiver():
    async with Receiver() as made:
        yield made


@asynccontextmanager
async def raw(answer, tls=None):
    """A server that reads one request's head and answers with these very bytes; yields its port and what it got."""
    heard = []

    async def serve(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # a client may connect and go without a word
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


async def test_a_request_arrives_as_it_was_made(outbound, receiver):
    asked = Request("PUT", receiver.url + "?a=1", {"Authorization": "Bearer k", "X-Name": "é"}, b'{"a":1}')
    await outbound.send(asked)
    (call,) = receiver.calls
    assert (call.method, call.path, call.body) == ("PUT", "/api/internal/cache/invalidate?a=1", b'{"a":1}')
    assert call.headers["authorization"] == "Bearer k"
    assert call.headers["x-name"].encode("latin-1").decode() == "é"
    assert call.headers["host"] == receiver.url.split("/")[2]
    assert (call.headers["content-type"], call.headers["accept-encoding"]) == ("application/json", "identity")
    assert not {name for name in call.headers if name.startswith("webhook-")} | (call.headers.keys() & {"cookie"})


async def test_configured_headers_win_but_not_over_framing(outbound, receiver):
    headers = {"Content-Type": "text/plain", "Content-Length": "99", "Accept-Encoding": "gzip"}
    await outbound.send(Request("POST", receiver.url, headers, b"{}"))
    (call,) = receiver.calls
    assert [call.headers[name] for name in ("content-type", "content-length", "accept-encoding")] == [
        "text/plain",
        "2",
        "identity",
    ]


async def test_one_connection_serves_many_and_no_cookie_is_kept(outbound, receiver):
    receiver.plan(Reply(200, headers={"set-cookie": "a=b"}))
    for _ in range(3):
        await outbound.send(Request("POST", receiver.url, body=b"{}"))
    assert len(receiver._open) == 1
    assert all("cookie" not in call.headers for call in receiver.calls)


async def test_every_secret_signs_and_any_verifies(outbound, receiver):
    body = '{"name":"Jürgen"}'.encode()
    await outbound.send(Request("POST", receiver.url, body=body, secrets=[NEW, OLD], webhook_id="msg_7"))
    (call,) = receiver.calls
    assert call.headers["webhook-id"] == "msg_7"
    assert len(call.headers["webhook-signature"].split()) == 2
    for secret in (NEW, OLD):
        Webhook(secret).verify(call.body, dict(call.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(call.body + b" ", dict(call.headers))
    first = {**call.headers, "webhook-signature": call.headers["webhook-signature"].split()[0]}
    Webhook(NEW).verify(call.body, first)


async def test_without_secrets_the_id_goes_along_unsigned(outbound, receiver):
    await outbound.send(Request("POST", receiver.url, body=b"{}", webhook_id="msg_7"))
    (call,) = receiver.calls
    assert call.headers["webhook-id"] == "msg_7"
    assert "webhook-signature" not in call.headers


@pytest.mark.parametrize("status", [200, 204, 207, 301, 302, 307, 404, 410, 500, 503])
async def test_an_answer_is_an_answer(outbound, receiver, status):
    receiver.plan(Reply(status, headers={"Location": receiver.url, "Retry-After": "7"}))
    answer = await outbound.send(Request("POST", receiver.url, body=b"{}"))
    assert (answer.status, answer.headers["retry-after"]) == (status, "7")
    assert len(receiver.calls) == 1  # a redirect is not followed


async def test_no_proxy_is_asked_of_the_environment(outbound, receiver, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert (await outbound.send(Request("GET", receiver.url))).status == 400


async def test_no_more_than_the_bound_is_read(outbound, receiver):
    receiver.plan(Reply(200, b"y" * READ_BYTES), Reply(200, b"y" * (READ_BYTES + 1)))
    exact, over = [await outbound.send(Request("POST", receiver.url, body=b"{}")) for _ in range(2)]
    assert (len(exact.body), exact.whole, len(over.body), over.whole) == (READ_BYTES, True, READ_BYTES, False)
    with pytest.raises(TooLarge):
        over.json()


async def test_an_endless_body_ends_and_its_connection_is_closed(outbound, receiver):
    receiver.plan(Reply(200, manner="endless"))
    answer = await outbound.send(Request("POST", receiver.url, body=b"{}"))
    assert (answer.status, answer.whole, len(answer.body)) == (200, False, READ_BYTES)
    async with asyncio.timeout(20):
        while receiver._open:  # noqa: ASYNC110 - the server's task ends when it cannot write any more
            await asyncio.sleep(0.005)


async def test_a_bomb_is_not_unpacked(outbound, receiver):
    bomb = gzip.compress(b"\0" * 10_000_000)
    receiver.plan(Reply(200, bomb, {"content-encoding": "gzip"}))
    assert (await outbound.send(Request("POST", receiver.url, body=b"{}"))).body == bomb


async def test_silence_is_too_slow(outbound, receiver):
    receiver.plan(Reply(manner="hang"))
    with pytest.raises(TooSlow, match=r"within 0\.3 s"):
        await outbound.send(Request("POST", receiver.url, body=b"{}", timeout=SOON))


async def test_dripping_is_too_slow_however_alive_it_looks(outbound):
    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(TooSlow):
            await outbound.send(Request("POST", url, body=b"{}", timeout=SOON))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 999999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200_000,
    ],
)
async def test_what_is_no_http_is_unreachable(outbound, answer):
    async with raw(answer) as (port, _):
        with pytest.raises(Unreachable):
            await outbound.send(Request("POST", f"http://127.0.0.1:{port}", body=b"{}", timeout=20))


async def test_nobody_listens(outbound, receiver):
    await receiver.stop()
    with pytest.raises(NoConnection, match=r"127\.0\.0\.1:\d+: .*(refused|connect)"):
        await outbound.send(Request("POST", receiver.url, body=b"{}"))
    await receiver.start()
    assert (await outbound.send(Request("POST", receiver.url, body=b"{}"))).status == 400


async def test_an_unknown_host(outbound):
    with pytest.raises(NoConnection, match=r"nowhere\.invalid:80: the host is not known"):
        await outbound.send(Request("GET", "http://nowhere.invalid/"))
    with pytest.raises(OutboundError):
        await outbound.send(Request("GET", f"http://{'a' * 70}.invalid/"))


async def test_no_message_holds_what_was_sent(outbound):
    key = "s3cret-key"
    url = "http://127.0.0.1:{port}/s3cret-key?s3cret-key"
    requests = [
        Request("POST", url, {"Authorization": f"Bearer {key}"}, key.encode(), [NEW], "msg_1"),
        Request("POST", url, {"Authorization": f"Bearer {key}\r\nX: y"}, b"{}"),
        Request("POST", url.replace("127.0.0.1", "s3cret-key@127.0.0.1"), {}, b"{}"),
        Request("POST", url, {"Authorization": key}, b"{}", timeout=SOON, allow=(), trusted=False),
    ]
    async with raw(b"s3cret-key HTTP/1.1 Authorization: s3cret-key\r\n\r\n") as (port, heard):
        for request in requests:
            made = Request(**{**vars(request), "url": request.url.format(port=port)})
            with pytest.raises(OutboundError) as caught:
                await outbound.send(made)
            assert key not in f"{caught.value} {caught.value.__cause__} {made!r}"
            assert NEW not in repr(made)
        assert len(heard) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"])
async def test_loopback_passes_from_the_configuration_only(outbound, receiver, host):
    url = receiver.url.replace("127.0.0.1", host)
    assert (await outbound.send(Request("POST", url, body=b"{}"))).status == 400
    calls = len(receiver.calls)
    with pytest.raises(RefusedAddress, match="not public"):
        await outbound.send(Request("POST", url, body=b"{}", trusted=False))
    assert len(receiver.calls) == calls == 1  # nor over the connection that is open


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data", "http://[fe80::1]/", "http://[fd00:ec2::254]"]
)
async def test_metadata_is_refused_before_anything_is_sent(outbound, url):
    with pytest.raises(RefusedAddress, match="allow"):
        await outbound.send(Request("GET", url))


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "http://", "x", "http://a:b@127.0.0.1/", "http://[::1"],
)
async def test_other_addresses_are_none(outbound, url):
    with pytest.raises(RefusedAddress):
        await outbound.send(Request("GET", url))


def names(monkeypatch, *answers):
    """A hostile name server: each look-up of rebinding.test gets the next of these answers, the last for ever."""
    real, left, asked = socket.getaddrinfo, list(answers), []

    def look_up(host, port, *more, **named):
        if host != "rebinding.test":
            return real(host, port, *more, **named)
        asked.append(host)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [found for address in addresses for found in real(address, port, *more, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


async def test_a_name_is_looked_up_once_and_what_was_checked_is_called(outbound, receiver, monkeypatch):
    asked = names(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
    with pytest.raises(Unreachable):
        await outbound.send(Request("POST", receiver.url.replace("127.0.0.1", "rebinding.test"), body=b"{}"))
    assert (receiver.calls, len(asked)) == ([], 1)


async def test_one_address_of_many_refuses_the_name(outbound, receiver, monkeypatch):
    names(monkeypatch, ["1.1.1.1", "127.0.0.1"])
    url = receiver.url.replace("127.0.0.1", "rebinding.test")
    with pytest.raises(RefusedAddress):
        await outbound.send(Request("POST", url, body=b"{}", trusted=False))
    names(monkeypatch, ["127.0.0.1", "169.254.169.254"])
    with pytest.raises(RefusedAddress):
        await outbound.send(Request("POST", url, body=b"{}"))
    assert receiver.calls == []


async def test_the_next_address_is_tried(outbound, receiver, monkeypatch):
    names(monkeypatch, ["::1", "127.0.0.2", "127.0.0.1"])
    url = receiver.url.replace("127.0.0.1", "rebinding.test")
    assert (await outbound.send(Request("POST", url, body=b"{}"))).status == 400


METADATA = ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "fd00:ec2::254",
            "100.100.100.200", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "168.63.129.16"]  # fmt: skip
INSIDE = ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "::", "fd00::1",
          "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1", "ff02::1", "fec0::1",
          "::127.0.0.1"]  # fmt: skip
OUTSIDE = ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]


def test_which_addresses_are_permitted():
    trusted, public = Policy(), Policy(trusted=False)
    assert [address for address in METADATA if trusted.permits(address)] == []
    assert [address for address in INSIDE + OUTSIDE if not trusted.permits(address)] == []
    assert [address for address in METADATA + INSIDE if public.permits(address)] == []
    assert [address for address in OUTSIDE if not public.permits(address)] == []


def test_what_is_allowed_counts_for_the_configuration_only():
    allow = (ipaddress.ip_network("169.254.169.254/32"), ipaddress.ip_network("fd00:ec2::/32"))
    assert Policy(True, allow).permits("169.254.169.254")
    assert Policy(True, allow).permits("fd00:ec2::254")
    assert not Policy(True, allow).permits("169.254.169.253")
    assert not Policy(False, allow).permits("169.254.169.254")


@pytest.fixture
def certificate(tmp_path):
    """A certificate for the name localhost, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(pem),
    ]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    return pem, key


async def test_a_certificate_is_checked_against_the_name_not_the_address(certificate):
    pem, key = certificate
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem, key)
    knows, knows_not = Outbound(ssl.create_default_context(cafile=str(pem))), Outbound()
    try:
        async with raw(b"HTTP/1.1 204 No\r\n\r\n", server) as (port, _):
            assert (await knows.send(Request("GET", f"https://localhost:{port}/"))).status == 204
            for outbound, host in [(knows, "127.0.0.1"), (knows_not, "localhost")]:
                with pytest.raises(Unreachable):
                    await outbound.send(Request("GET", f"https://{host}:{port}/"))
    finally:
        await knows.close()
        await knows_not.close()


async def test_closing_lets_go_of_every_connection(receiver):
    outbound = Outbound()
    await outbound.send(Request("POST", receiver.url, body=b"{}"))
    assert receiver._open
    await outbound.close()
    async with asyncio.timeout(20):
        while receiver._open:  # noqa: ASYNC110 - the server sees the end in its own time
            await asyncio.sleep(0.005)
