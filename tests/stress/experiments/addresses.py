"""D.7: addresses written so that they look like others, in a network of their own."""

import asyncio
import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.stress.address_probe import ADDRESSES, FLIPS, HOSTS, NAME_SERVER, REACHABLE
from tests.stress.experiment import Missing, Report, experiment
from tests.stress.place import Place
from tests.support import ROOT

PROBE_SECONDS = 120.0
METADATA = [ipaddress.ip_network(network) for network in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32")]


@experiment("68-addresses", nightly=2 * (len(HOSTS) + len(REACHABLE) + len(FLIPS)), quiet=True)
async def addresses(place: Place, report: Report) -> None:
    """URLs in every disguise, names that answer with several addresses or change them: where do connections arrive?"""
    with namespace(f"jqw{uuid.uuid4().hex[:8]}") as name:
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "tests.stress.address_probe"]
        probe = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                said, trouble = await probe.communicate()
        finally:
            if probe.returncode is None:
                probe.kill()
    if probe.returncode != 0:
        raise RuntimeError(trouble.decode()[-1000:])
    found = json.loads(said)
    report.injected = len(found)
    for each in found:
        reached = [ipaddress.ip_address(address) for address in each["reached"]]
        wrong = [str(ip) for ip in reached if not (_configured(ip) if each["trusted"] else ip.is_global)]
        report.expect(not wrong, f"{each['host']!r} (trusted: {each['trusted']}) reached {wrong}: {each['came']}")
        if each["host"] in REACHABLE:
            report.expect(each["came"] == "204", f"{each['host']!r} was not reached: {each['came']}")
    report.figures["reached"] = sum(bool(each["reached"]) for each in found)
    report.figures["refused"] = sum(each["came"] == "RefusedAddress" for each in found)
    flips = [each for each in found if each["host"] in FLIPS and each["reached"]]
    report.expect(bool(flips), "the name that flips was never reached: the experiment showed nothing of it")
    await place.judge(report)


def _configured(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """An address that the configuration may name without `allow`."""
    return not any(ip in network for network in METADATA)


@contextlib.contextmanager
def namespace(name: str) -> Iterator[str]:
    """A network namespace with our addresses on its loopback and our name server."""
    if shutil.which("ip") is None:
        raise Missing("ip (Debian: iproute2) makes the network namespace")
    if os.geteuid() != 0:
        raise Missing("root, who makes the network namespace")
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        raise Missing(f"network namespaces: {made.stderr.decode().strip()}")
    etc = Path("/etc/netns") / name
    try:
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\noptions attempts:1 timeout:1\n")
        for command in (
            ["link", "set", "lo", "up"],
            *(["addr", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo", *_nodad(address)]
              for address in ADDRESSES),
        ):  # fmt: skip
            subprocess.run(["ip", "-n", name, *command], check=True, capture_output=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        shutil.rmtree(etc, ignore_errors=True)


def _nodad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []
