"""Two network namespaces with a cable between them: a server in the one, daemons in the other (Linux, root)."""

import asyncio
import ctypes
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.stress.experiment import Missing
from tests.stress.place import Place
from tests.stress.place import place as another_place
from worker.embedded import Embedded, start

CLONE_NEWNET = 0x40000000
NEAR, FAR = "10.199.77.1", "10.199.77.2"  # of the server, of the daemons
PORT = 5432


class Cable:
    """The link between the namespaces `near` and `far`."""

    def __init__(self) -> None:
        self.near, self.far = f"worker-near-{os.getpid()}", f"worker-far-{os.getpid()}"
        # One thread that lives in `near`, and whoever it starts lives there as well and ends with it.
        self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(self.near,))

    @property
    def prefix(self) -> tuple[str, ...]:
        """What makes a command run in `far`."""
        return ("ip", "netns", "exec", self.far)

    async def within(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Do something in `near`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*arguments, **named))

    def plug(self, plugged: bool) -> None:
        """Pull the cable: neither side is told of anything; or plug it in again."""
        ip("-n", self.far, "link", "set", "far", "up" if plugged else "down")

    def drop(self, chain: str, dropped: bool) -> None:
        """What `far` sends (OUTPUT) or gets (INPUT) over TCP is thrown away without a word; or is not any more."""
        _run(*self.prefix, "iptables", "-A" if dropped else "-D", chain, "-p", "tcp", "-j", "DROP")

    def lay(self) -> None:
        for name in (self.near, self.far):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "near", "netns", self.near, "type", "veth", "peer", "name", "far", "netns", self.far)
        for name, link, address in ((self.near, "near", NEAR), (self.far, "far", FAR)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")

    def end(self) -> None:
        self._thread.shutdown()
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@contextmanager
def cable() -> Iterator[Cable]:
    """Two namespaces; Missing where they cannot be made."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        raise Missing("network namespaces need root and ip")
    laid = Cable()
    try:
        try:
            laid.lay()
        except subprocess.CalledProcessError as error:
            raise Missing(f"no network namespaces here: {error.stderr.decode().strip()}") from None
        yield laid
    finally:
        laid.end()


@asynccontextmanager
async def place_across(outer: Place, laid: Cable) -> AsyncIterator[tuple[Place, str]]:
    """A place on a server in `near`, and its address for those in `far`; from here it is reached by its socket."""
    data = outer.folder / "near"
    server: Embedded = await laid.within(start, data, die_with_parent=True, tcp_port=PORT)
    try:
        await laid.within(_open, server)
        async with another_place(server, outer.folder, outer.chance.randrange(1_000_000)) as there:
            yield there, f"postgresql://postgres@{NEAR}:{PORT}/{there.dsn.partition('?')[0].rpartition('/')[2]}"
    finally:
        await laid.within(server.stop, "immediate")


def ip(*words: str) -> None:
    """iproute2."""
    _run("ip", *words)


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True, timeout=10)


def _enter(name: str) -> None:
    with Path(f"/run/netns/{name}").open() as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")


def _open(server: Embedded) -> None:
    """Let it listen at the cable: an address that nobody outside of the two namespaces can reach."""
    with (server.data / "cluster" / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {FAR}/32 trust\n")
    server._settings["listen_addresses"] = NEAR
    server.restart("fast")
