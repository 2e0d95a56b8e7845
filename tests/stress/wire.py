"""As much of Postgres' protocol as a proxy needs: whose connection it is, and which statements go through it."""

import asyncio
from dataclasses import dataclass, field

IDLE = b"Z\x00\x00\x00\x05I"  # ReadyForQuery outside of a transaction: the server has committed


class Statements:
    """The statements of one connection; those that were prepared are run by name."""

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}
        self._head = b""  # of a message that was cut within its first five bytes
        self._owed = 0  # bytes of the last message that are still to come

    def run(self, data: bytes) -> list[bytes]:
        """The texts of the statements that these messages run."""
        found = []
        for kind, body in self._messages(data):
            if kind == b"P":
                name, _, rest = body.partition(b"\0")
                self._texts[name] = rest.partition(b"\0")[0]
            elif kind == b"B":
                found.append(self._texts.get(body.split(b"\0")[1], b""))
            elif kind == b"Q":
                found.append(body.rstrip(b"\0"))
        return found

    def _messages(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Kinds and bodies; of a message that is not here as a whole, what is here of it."""
        data = self._head + data
        found, at = [], self._owed
        while at + 5 <= len(data):
            end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
            found.append((data[at : at + 1], data[at + 5 : end]))
            at = end
        self._head, self._owed = data[at:], max(at - len(data), 0)
        return found


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    duty: str
    deaf: bool = False  # the server's answer is swallowed, then the connection is cut
    frozen: bool = False  # nothing gets through any more, and nobody is told
    statements: Statements = field(default_factory=Statements)
    ran: list[bytes] = field(default_factory=list)  # what the server runs just now

    def cut(self) -> None:
        """Both ends see a reset."""
        self.client.transport.abort()
        self.server.transport.abort()


def duty(startup: bytes) -> str:
    """What follows `worker ` in the application_name."""
    words = startup[8:].split(b"\0")
    said = dict(zip(words[::2], words[1::2], strict=False))
    return said.get(b"application_name", b"").decode(errors="replace").removeprefix("worker ")
