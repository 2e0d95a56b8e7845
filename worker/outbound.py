"""One outgoing HTTP request: bounded in time and size, to a checked address, signed. Knows nothing of jobs.

httpx2 makes the request and its own httpcore2 sends it: that layer follows no redirect, keeps no cookie, asks no
environment for a proxy, unpacks no answer, and takes the guard of addresses in public.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import httpcore2
import httpx2
from standardwebhooks import Webhook

from worker import exact
from worker.errors import JobError

READ_BYTES = 65_536  # of an answer's body; what follows is not read
CONNECT_SECONDS = 5.0  # for all addresses of a host together
KEEP_SECONDS = 4.0  # of an idle connection: under the 5 s after which Node closes its end
ADDRESSES = 8  # of a host that are tried

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST = ipaddress.IPv6Network("2000::/3")


class OutboundError(JobError):
    """A request that got no answer to go by. The message names host and port, never path, headers or body."""


class Unreachable(OutboundError):
    """No connection, or it broke, or what came was no HTTP."""


class TooSlow(OutboundError):
    """The whole of it took longer than the request's timeout."""


class TooLarge(OutboundError):
    """The answer's body is needed and larger than is read."""


class RefusedAddress(OutboundError):
    """The address is not one that this request may go to; nothing was sent."""


@dataclass(frozen=True)
class Request:
    """What to send.

    Attributes:
        secrets: Standard Webhooks secrets, newest first; a signature for each.
        webhook_id: the same for every try of one call; sent as `webhook-id`.
        timeout: seconds for everything, name resolution and the answer's body included.
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
    allow: tuple[Network, ...] = ()
    trusted: bool = True


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        headers: by name, in whatever case.
        body: as sent, never unpacked; at most 64 KiB of it.
        whole: False when the body went on beyond that.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    def json(self) -> Any:
        """The body, decoded.

        Raises:
            TooLarge: not all of it was read.
            ValueError: it is no JSON.
        """
        if not self.whole:
            raise TooLarge(f"the answer {self.status} is larger than {READ_BYTES} bytes")
        return exact.loads(self.body.decode())


@dataclass(frozen=True)
class Policy:
    """Which addresses a request may go to."""

    trusted: bool = True
    allow: tuple[Network, ...] = ()

    def permits(self, address: str) -> bool:
        """Judge one resolved address; an IPv4 address inside an IPv6 one counts as what it is."""
        ip = _plain(ipaddress.ip_address(address.partition("%")[0]))
        if self.trusted:
            return any(ip in network for network in self.allow) or not (ip.is_link_local or ip in _METADATA)
        return ip.is_global and not ip.is_multicast and ip not in _METADATA and (ip.version == 4 or ip in _UNICAST)


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
                return await self._exchange(made, Policy(request.trusted, request.allow))
        except TimeoutError:
            raise TooSlow(f"{where}: no whole answer within {request.timeout:g} s") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            # Texts of other errors may quote what was sent or received.
            said = str(error) if isinstance(error, httpcore2.ConnectError) else ""
            raise Unreachable(f"{where}: {said or type(error).__name__}") from None

    async def close(self) -> None:
        """Close idle connections; at the end of the process."""
        while self._pools:
            await self._pools.popitem()[1].aclose()

    async def _exchange(self, made: httpx2.Request, policy: Policy) -> Answer:
        to = made.url
        url = httpcore2.URL(scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=to.raw_path)
        extensions = {"timeout": {"connect": CONNECT_SECONDS}}
        stream = self._pool(policy).stream(
            made.method, url, headers=made.headers.raw, content=made.content, extensions=extensions
        )
        async with stream as answer:
            return Answer(answer.status, httpx2.Headers(answer.headers), *await _read(answer))

    def _pool(self, policy: Policy) -> httpcore2.AsyncConnectionPool:
        # One for each policy: an open connection that one request may use must not be lent to another that may not.
        if policy not in self._pools:
            self._pools[policy] = httpcore2.AsyncConnectionPool(
                ssl_context=self._tls,
                max_connections=None,  # bounded by the jobs in hand, so a dead receiver keeps nobody else waiting
                max_keepalive_connections=20,
                keepalive_expiry=KEEP_SECONDS,
                network_backend=_Guard(policy),
            )
        return self._pools[policy]

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._verify or httpx2.create_ssl_context(trust_env=False)


class _Guard(httpcore2.AsyncNetworkBackend):
    """Resolves once, checks every address, connects to a checked one: a name cannot change in between."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *more: Any, **named: Any
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await _resolved(host, port)
        if refused := [address for address in addresses if not self._policy.permits(address)]:
            detail = f" at {refused[0]}: name its network in `allow`" if self._policy.trusted else " not public"
            raise RefusedAddress(f"{host}:{port} is{detail}")
        share = timeout / len(addresses) if timeout else None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, share, *more, **named)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = str(error) or "no connection in time"
        raise httpcore2.ConnectError(failure)


async def _resolved(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise httpcore2.ConnectError("the host is not known") from None
    return list(dict.fromkeys(str(where[0]) for *_, where in found))[:ADDRESSES]


def _plain(ip: Address) -> Address:
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        return inner or (ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if ip in _NAT64 else ip)
    return ip


async def _read(answer: httpcore2.Response) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in answer.aiter_stream():
        body += chunk
        if len(body) > READ_BYTES:
            return bytes(body[:READ_BYTES]), False  # leaving the stream closes its connection
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
