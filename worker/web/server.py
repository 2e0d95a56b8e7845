"""uvicorn in the daemon's own loop: our signals, our socket, a prompt stop, nobody who only holds a place."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Self

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.config import Config
from worker.config.models import Http
from worker.errors import ConfigError
from worker.web.app import App, Readiness, Site
from worker.web.auth import Keys

CONNECTIONS = 100  # at once; a daemon's file descriptors are for its database
HEAD_SECONDS = 10.0  # for the head of a request, from the first byte of it
# Of a connection between requests: longer than clients and proxies keep one (httpx 5 s, nginx and balancers 60 s), or
# some request is under way when it is closed here, and is never answered.
KEEP_SECONDS = 75
TAKE_SECONDS = 20.0  # for a client to take what is sent, until there is room for more
STOP_SECONDS = 2

_log = structlog.get_logger()


class Web:
    """The listener of `[http]`.

    Args:
        site: the API and the pages, closed when the listener ends; without it there are health, readiness and metrics.

    Raises:
        ConfigError: the address cannot be listened on; at once, not when it is first asked.

    Attributes:
        port: where it listens; the system's choice where 0 was asked for.
    """

    def __init__(self, http: Http, site: Site | None = None) -> None:
        self._http = http
        self._site = site
        self._socket = _bound(http)
        self.port = int(self._socket.getsockname()[1])

    @classmethod
    def of(cls, config: Config) -> Self:
        """The listener of a configuration that has `[http]`, with the API and the pages where they are on."""
        assert config.http is not None
        if not config.http.api:
            return cls(config.http)
        from worker.web.application import Site  # half a second and 15 MB that probes alone need not

        return cls(config.http, Site(config))

    def close(self) -> None:
        """Let go of the address; for a web side that was never served."""
        self._socket.close()

    async def serve(self, registry: CollectorRegistry, readiness: Readiness) -> None:
        """Answer until cancelled."""
        server = _Server(_settings(App(Keys(self._http), registry, readiness, self._site)))
        serving = asyncio.create_task(server.serve(sockets=[self._socket]), name="web")
        _log.debug("web.listening", host=self._http.host, port=self.port, keys=len(self._http.keys))
        try:
            await asyncio.shield(serving)
        finally:
            if self._site is not None:
                self._site.end_streams()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=STOP_SECONDS + 1)
            serving.cancel()
            if self._site is not None:
                self._site.close()
            self.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon: uvicorn would take SIGTERM, and raise it again at its end."""
        yield


class _Protocol(H11Protocol):
    """uvicorn waits for ever for a head that never comes and for a client that takes nothing, of as many as connect.

    Beyond CONNECTIONS, of those that are owed no answer the one that has been silent for longest goes: whoever only
    holds places keeps nobody out.
    """

    _silent_since = 0.0
    _head: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._silent_since = self.loop.time()
        if len(self.connections) > CONNECTIONS:
            silent = [each for each in self.connections if isinstance(each, _Protocol) and each._silent]
            min(silent, key=lambda each: each._silent_since).transport.abort()  # at worst this one
        self._head = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_head()
        self._end_taking()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._silent:
            self._end_head()
        elif self._head is None:  # uvicorn's own timer, which ran since the last answer, ended with the first byte
            self._head = self.loop.call_later(HEAD_SECONDS, self._late)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._silent_since = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self.loop.call_later(TAKE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_taking()

    @property
    def _silent(self) -> bool:
        """Whether no answer is owed; the last one may still be on its way to whoever does not take it."""
        return self.cycle is None or self.cycle.response_complete or self.transport.is_closing()

    def _late(self) -> None:
        if self._silent:
            self.transport.abort()

    def _end_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _end_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None


def _settings(app: App) -> uvicorn.Config:
    fixed: dict[str, Any] = {"lifespan": "off", "log_config": None, "access_log": False, "server_header": False}
    return uvicorn.Config(
        app, http=_Protocol, ws="none", proxy_headers=False, timeout_keep_alive=KEEP_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS, **fixed,
    )  # fmt: skip


def _bound(http: Http) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            http.host, http.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _fault(http, error) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(CONNECTIONS)
    except OSError as error:
        bound.close()
        raise _fault(http, error) from None
    bound.setblocking(False)
    return bound


def _fault(http: Http, error: OSError) -> ConfigError:
    return ConfigError([f"http.listen: cannot listen on {http.listen}: {error.strerror or error}"])
