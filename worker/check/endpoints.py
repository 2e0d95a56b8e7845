"""The addresses that HTTP jobs call: whether they are known, allowed and answer to a connection. Nothing is sent."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_network
from urllib.parse import urlsplit

import httpcore2

from worker.addresses import Guard, Policy, RefusedAddress
from worker.check.finding import Finding, ok, warning
from worker.check.patient import Patient
from worker.config import Config

SECONDS = 3.0

Place = tuple[str, int, tuple[str, ...]]


async def look(patient: Patient) -> list[Finding]:
    named: dict[Place, list[str]] = {}
    for key, place in _places(patient.config):
        named.setdefault(place, []).append(key)
    came = await asyncio.gather(*(_tried(place, ", ".join(keys)) for place, keys in named.items()))
    found = [each for each in came if each is not None]
    return found if found or not named else [ok("endpoints", f"{len(named)} of HTTP jobs, and all take connections")]


def _places(config: Config) -> Iterator[tuple[str, Place]]:
    for name, job in config.job.items():
        for key, url in (("http", job.http), ("fallback", job.fallback)):
            if url is not None:
                parts = urlsplit(url)
                port = parts.port or (443 if parts.scheme == "https" else 80)
                yield f"job.{name}.{key}", (parts.hostname or "", port, job.allow)


async def _tried(place: Place, keys: str) -> Finding | None:
    host, port, allow = place
    try:
        guard = Guard(Policy(allow=tuple(ip_network(network) for network in allow)))
        async with asyncio.timeout(SECONDS):  # the name's resolution included
            stream = await guard.connect_tcp(host, port, SECONDS)
        await stream.aclose()
    except RefusedAddress as error:
        return warning("endpoints.refused", f"{keys}: {error}", "add the network to `allow` of the job, if it is meant")
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout, TimeoutError) as error:
        cure = "start what listens there, let this machine reach it, or correct the address in worker.toml"
        reason = str(error) or f"nobody answers within {SECONDS:g} s"
        return warning("endpoints.unreachable", f"{keys}: no connection to {host}:{port}: {reason}", cure)
    return None
