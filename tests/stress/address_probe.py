"""Run inside a network namespace that has all these addresses: which of them does a request really reach?

Every address of ADDRESSES is on the loopback here, a server listens at each, and the names are answered by a name
server of our own, which changes its mind. Prints one JSON object: for each way of writing an address what came of it,
and where connections were taken.
"""

import asyncio
import ipaddress
import json
import socket
import struct
from collections import defaultdict
from contextlib import suppress

from worker.errors import JobError
from worker.outbound import Outbound, Request

PUBLIC, PUBLIC_6 = "93.184.215.14", "2606:4700::1111"
ADDRESSES = [PUBLIC, PUBLIC_6, "10.1.2.3", "192.168.1.1", "100.64.0.1", "169.254.169.254", "fd00:ec2::254", "fd12::1"]
NAME_SERVER = "127.0.0.53"
NAMES: dict[str, list[list[str]]] = {  # the answers in turn, the last one for ever
    "public.test": [[PUBLIC]],
    "public6.test": [[PUBLIC_6]],
    "private.test": [["10.1.2.3"]],
    "xn--bcher-kva.test": [["10.1.2.3"]],
    "metadata.test": [["169.254.169.254"]],
    "metadata6.test": [["fd00:ec2::254"]],
    "mapped.test": [["::ffff:169.254.169.254"]],
    "mixed.test": [[PUBLIC, "10.1.2.3", "169.254.169.254"]],
    "mixed6.test": [[PUBLIC, "::1", "fd00:ec2::254"]],
    "flips.test": [[PUBLIC], ["127.0.0.1"], [PUBLIC], ["169.254.169.254"]] * 5,
}
HOSTS = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "0x7f.1", "0", "0.0.0.0", "[::1]",
    "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "10.1.2.3",
    "167838211", "0x0a010203", "012.1.2.3", "192.168.1.1", "3232235777", "100.64.0.1", "169.254.169.254", "2852039166",
    "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]", "[fd12::1]", "[fe80::1]", "[fe80::1%25lo]", "169.254.169.254.",
    "127.0.0.1.", "localhost", "localhost.", "LOCALHOST", "\u24dbocalhost", "127\u30020\u30020\u30021",
    "\uff11\uff12\uff17.0.0.1", "\uff11\uff16\uff19.254.169.254", "private.test", "private.test.", "PRIVATE.test",
    "b\u00fccher.test", "xn--bcher-kva.test", "metadata.test", "metadata.test.", "metadata6.test", "mapped.test",
    "mixed.test", "mixed6.test", "public.test@127.0.0.1", "public.test:80@169.254.169.254",
    "169.254.169.254#@public.test", "169.254.169.254\\@public.test",
    "public.test%2f@169.254.169.254", "169.254.169.254%00.public.test",
    "169.254.169.254 .public.test", "169.254.169.254%09", "[::ffff:169.254.169.254%25x]",
]  # fmt: skip
REACHABLE = [PUBLIC, f"[{PUBLIC_6}]", "public.test", "public.test.", "public6.test", "PUBLIC.test"]
FLIPS = ["flips.test"] * 20


class Decoys:
    """A server at every address; notes where it was reached."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached.append(str(plain(writer.get_extra_info("sockname")[0])))
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No\r\nconnection: close\r\n\r\n")
            await writer.drain()
        writer.close()


class NameServer(asyncio.DatagramProtocol):
    """Answers A and AAAA without a time to live, each name with the next of its answers."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], int] = defaultdict(int)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length].decode().lower())
            at += length + 1
        name, (kind,) = ".".join(labels), struct.unpack("!H", data[at + 1 : at + 3])
        answers = NAMES.get(name)
        found = answers[min(self._asked[name, kind], len(answers) - 1)] if answers else []
        self._asked[name, kind] += 1
        wanted = [address for address in found if (":" in address) == (kind == 28)]
        records = b"".join(self._record(kind, address) for address in wanted)
        flags = 0x8180 if answers else 0x8183
        head = data[:2] + struct.pack("!HHHHH", flags, 1, len(wanted), 0, 0)
        self._transport.sendto(head + data[12 : at + 5] + records, addr)

    def _record(self, kind: int, address: str) -> bytes:
        packed = ipaddress.ip_address(address).packed
        return b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(packed)) + packed


def plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address inside an IPv6 one as what it is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


async def tried(outbound: Outbound, decoys: Decoys, host: str, trusted: bool) -> dict[str, object]:
    """One request, and where it arrived."""
    before = len(decoys.reached)
    try:
        answer = await outbound.send(Request("POST", f"http://{host}/", body=b"{}", timeout=3.0, trusted=trusted))
        came = str(answer.status)
    except JobError as error:
        came = type(error).__name__
    return {"host": host, "trusted": trusted, "came": came, "reached": decoys.reached[before:]}


async def main() -> None:
    loop, decoys = asyncio.get_running_loop(), Decoys()
    for family, every in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listening = socket.create_server((every, 80), family=family)
        await asyncio.start_server(decoys.serve, sock=listening)
    await loop.create_datagram_endpoint(NameServer, local_addr=(NAME_SERVER, 53))
    outbound = Outbound()
    found = [
        await tried(outbound, decoys, host, trusted)
        for trusted in (False, True)
        for host in (*HOSTS, *REACHABLE, *FLIPS)
    ]
    await outbound.close()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
