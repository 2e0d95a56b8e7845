"""TLS before a server that may have none: a front whose certificate changes as an experiment wants."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

from tests.stress.certificates import HOST, Certificates

CHUNK = 65536


class TlsFront:
    """Takes connections on a port of loopback.

    Attributes:
        speaks: whether it says yes when it is asked for TLS.
        taken: connections that came through the handshake.
        refused: handshakes that the client gave up, and questions for TLS that were answered with no.
    """

    def __init__(self, dsn: str, made: Certificates) -> None:
        url = urlsplit(dsn)
        query = parse_qs(url.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._path, self._made = url.path, made
        self._context = self._with("good")
        self._writers: set[asyncio.StreamWriter] = set()
        self.speaks = True
        self.taken = self.refused = 0
        self.port = 0

    @property
    def dsn(self) -> str:
        """What a careful client is given."""
        address = f"postgresql://postgres@{HOST}:{self.port}{self._path}"
        return f"{address}?sslmode=verify-full&sslrootcert={self._made.root}"

    def show(self, name: str) -> None:
        """Another certificate, for connections that come from now on."""
        self._context = self._with(name)

    def cut(self) -> None:
        """End every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _with(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._made.folder / f"{name}.crt", self._made.folder / "server.key")
        return context

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        self._writers.add(writer)
        try:
            await reader.readexactly(8)  # asks for TLS: nobody who wants verify-full says anything else
            writer.write(b"S" if self.speaks else b"N")
            await writer.drain()
            if not self.speaks:
                self.refused += 1
                return
            try:
                await writer.start_tls(self._context)
            except OSError:
                self.refused += 1
                return
            self.taken += 1
            await self._forward(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_unix_connection(self._socket)
        ways = [asyncio.create_task(_copied(reader, there)), asyncio.create_task(_copied(back, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there.transport.abort()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def tls_front(dsn: str, made: Certificates) -> AsyncIterator[TlsFront]:
    """A front before the database at `dsn`."""
    front = TlsFront(dsn, made)
    server = await asyncio.start_server(front.serve, HOST, 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        front.cut()
