"""Which addresses an outgoing request may go to, and the connection to one that was checked."""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

import httpcore2

from worker.errors import JobError

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


class RefusedAddress(OutboundError):
    """The address is not one that this request may go to; nothing was sent."""


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


class Guard(httpcore2.AsyncNetworkBackend):
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
