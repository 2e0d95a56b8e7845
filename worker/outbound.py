"""One outgoing HTTP request: bounded in time and size, to a checked address, signed. Knows nothing of jobs.

httpx2 makes the request and its own httpcore2 sends it: that layer follows no redirect, keeps no cookie, asks no
environment for a proxy, unpacks no answer, and takes the guard of addresses in public.
"""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import httpcore2
import httpx2
from standardwebhooks import Webhook

from worker import exact
from worker.addresses import Guard, Network, OutboundError, Policy, RefusedAddress

READ_BYTES = 65_536  # of an answer's body; what follows is not read
CONNECT_SECONDS = 5.0  # for all addresses of a host together
MOST_WAIT_SECONDS = 999_999_999.0  # that a Retry-After is taken for: more can be no instant in the database
KEEP_SECONDS = 4.0  # of an idle connection: under the 5 s after which Node closes its end


class Unreachable(OutboundError):
    """No connection, or it broke, or what came was no HTTP."""


class NoConnection(Unreachable):
    """No connection came about, so nothing was sent."""


class TooSlow(OutboundError):
    """The whole of it took longer than the request's timeout."""


class TooLarge(OutboundError):
    """The answer's body is needed and larger than is read."""


@dataclass(frozen=True)
class Request:
    """What to send.

    Attributes:
        secrets: Standard Webhooks secrets, newest first; a signature for each.
        webhook_id: the same for every try of one call; sent as `webhook-id`.
        timeout: seconds for everything, name resolution and the answer's body included.
        most: bytes of the answer's body that are read; what follows is not.
        allow: link-local and metadata networks that may be called all the same; counts for trusted addresses only.
        trusted: the address comes from the configuration. Others must be public.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    webhook_id: str | None = None
    timeout: float = 15.0
    most: int = READ_BYTES
    allow: tuple[Network, ...] = ()
    trusted: bool = True


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        headers: by name, in whatever case.
        body: as sent, never unpacked; at most `Request.most` bytes of it.
        whole: False when the body went on beyond that.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    @property
    def retry_after(self) -> float | None:
        """Seconds from now that the answer's Retry-After asks to wait; None without one to be read."""
        return seconds_until(self.headers.get("retry-after"), datetime.now(UTC))

    def json(self) -> Any:
        """The body, decoded.

        Raises:
            TooLarge: not all of it was read.
            ValueError: it is no JSON.
        """
        if not self.whole:
            raise TooLarge(f"the answer {self.status} is larger than {len(self.body)} bytes")
        return exact.loads(self.body.decode())


class Outbound:
    """The process's one way out; `verify` takes the place of the system's certificates."""

    def __init__(self, verify: ssl.SSLContext | None = None) -> None:
        self._verify = verify
        self._pools: dict[Policy, httpcore2.AsyncConnectionPool] = {}

    async def send(self, request: Request) -> Answer:
        """Send it once and read the answer, whatever its status; raises an OutboundError when there is none."""
        made = _made(request)
        where = f"{made.url.host}:{made.url.port or (443 if made.url.scheme == 'https' else 80)}"
        try:
            async with asyncio.timeout(request.timeout):
                return await self._exchange(made, request.most, Policy(request.trusted, request.allow))
        except TimeoutError:
            raise TooSlow(f"{where}: no whole answer within {request.timeout:g} s") from None
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            raise NoConnection(f"{where}: {_said(error)}") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            raise Unreachable(f"{where}: {type(error).__name__}") from None  # its text may quote what was sent

    async def close(self) -> None:
        """Close idle connections; at the end of the process."""
        while self._pools:
            await self._pools.popitem()[1].aclose()

    async def _exchange(self, made: httpx2.Request, most: int, policy: Policy) -> Answer:
        to = made.url
        url = httpcore2.URL(scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=to.raw_path)
        extensions = {"timeout": {"connect": CONNECT_SECONDS}}
        stream = self._pool(policy).stream(
            made.method, url, headers=made.headers.raw, content=made.content, extensions=extensions
        )
        async with stream as answer:
            return Answer(answer.status, httpx2.Headers(answer.headers), *await _read(answer, most))

    def _pool(self, policy: Policy) -> httpcore2.AsyncConnectionPool:
        # One for each policy: an open connection that one request may use must not be lent to another that may not.
        if policy not in self._pools:
            self._pools[policy] = httpcore2.AsyncConnectionPool(
                ssl_context=self._tls,
                max_connections=None,  # bounded by the jobs in hand, so a dead receiver keeps nobody else waiting
                max_keepalive_connections=20,
                keepalive_expiry=KEEP_SECONDS,
                network_backend=Guard(policy),
            )
        return self._pools[policy]

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._verify or httpx2.create_ssl_context(trust_env=False)


def seconds_until(retry_after: str | None, now: datetime) -> float | None:
    """What a Retry-After says, seconds or a date: 0 for one that is past, some decades for more, None for nonsense."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MOST_WAIT_SECONDS)
    try:
        at = parsedate_to_datetime(text)
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds.total_seconds(), 0.0), MOST_WAIT_SECONDS)


def _said(error: Exception) -> str:
    return (str(error) if isinstance(error, httpcore2.ConnectError) else "") or type(error).__name__


async def _read(answer: httpcore2.Response, most: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in answer.aiter_stream():
        body += chunk
        if len(body) > most:
            return bytes(body[:most]), False  # leaving the stream closes its connection
    return bytes(body), True


def _made(request: Request) -> httpx2.Request:
    headers = {"user-agent": "job-queue-worker", "accept": "*/*"}
    if request.body:
        headers["content-type"] = "application/json"
    headers |= {name.lower(): value for name, value in request.headers.items() if name.lower() != "content-length"}
    headers |= {"accept-encoding": "identity"} | _signed(request)
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    try:
        made = httpx2.Request(request.method, request.url, headers=raw, content=request.body)
    except (httpx2.InvalidURL, ValueError):
        raise RefusedAddress("this is no address that can be called") from None
    if made.url.scheme not in ("http", "https") or not made.url.host or made.url.userinfo:
        raise RefusedAddress("only http:// and https:// addresses without credentials are called")
    return made


def _signed(request: Request) -> dict[str, str]:
    if request.webhook_id is None:
        return {}
    now = datetime.now(UTC)
    headers = {"webhook-id": request.webhook_id, "webhook-timestamp": str(int(now.timestamp()))}
    if request.secrets:
        text = request.body.decode()
        signatures = (Webhook(secret).sign(request.webhook_id, now, text) for secret in request.secrets)
        headers["webhook-signature"] = " ".join(signatures)
    return headers
