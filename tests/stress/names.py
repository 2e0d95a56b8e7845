"""A name server of our own, which tells what an experiment wants, as late as it wants (Linux, root)."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

from tests.stress.experiment import Missing

HERE = "127.77.0.1"  # loopback, and nobody else's
NAME = "database.stress.test"
A, AAAA = 1, 28
NO_ERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
# The resolver of one process alone: the rest of the machine keeps its own.
PREFIX = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"')


class Names(asyncio.DatagramProtocol):
    """Answers for every name alike.

    Attributes:
        code: of the answer; with NO_ERROR it holds the `addresses` of the kind that was asked for.
        delay: seconds until it is sent.
        asked: how many questions came.
    """

    def __init__(self, folder: Path) -> None:
        self.code = NO_ERROR
        self.addresses = ["127.0.0.1"]
        self.delay = 0.0
        self.asked = 0
        self._file = folder / "resolv.conf"
        self._file.write_text(f"nameserver {HERE}\noptions timeout:15 attempts:1\n")
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        """What makes a command ask us."""
        return (*PREFIX, str(self._file))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        asyncio.get_running_loop().call_later(self.delay, self._answer, data, addr)

    def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        end = data.index(b"\0", 12) + 5
        kind = int.from_bytes(data[end - 4 : end - 2], "big")
        found = [_packed(each) for each in self.addresses if self.code == NO_ERROR and (":" in each) == (kind == AAAA)]
        head = data[:2] + struct.pack(">HHHHH", 0x8180 | self.code, 1, len(found), 0, 0)
        records = [b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(each)) + each for each in found]
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(head + data[12:end] + b"".join(records), addr)


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@contextlib.asynccontextmanager
async def names(folder: Path) -> AsyncIterator[Names]:
    """The name server; Missing where nobody may be one."""
    if os.geteuid() != 0:
        raise Missing("a name server of one's own needs root")
    try:
        transport, served = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Names(folder), local_addr=(HERE, 53)
        )
    except OSError as error:
        raise Missing(f"no name server at {HERE}: {error}") from None
    try:
        yield served
    finally:
        transport.close()
