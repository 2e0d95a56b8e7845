"""JSON in and out: exact numbers both ways, nothing that JSON has not, no secret by accident."""

import json
from collections.abc import Callable, Coroutine
from types import MappingProxyType
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from worker import exact
from worker.config.redaction import STARS, secret_name
from worker.log import safe

DEEPEST = 100  # levels; Postgres stores more than anything here writes


class _Exact(Request):
    """A request whose JSON keeps whole numbers of any length, and is refused where it is none, such as NaN."""

    async def json(self) -> Any:
        try:
            return exact.loads((await self.body()).decode())
        except ValueError as error:
            raise json.JSONDecodeError(str(error)[:200], "", 0) from None


class Strict(APIRoute):
    """A route that reads JSON exactly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given such a request."""
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await inner(_Exact(request.scope, request.receive))

        return handle


def reply(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(exact.dumps(value, _plain), status, headers, media_type="application/json")


def _plain(value: object) -> object:
    """What JSON is to show of a shared answer's parts, see `worker.web.shared`."""
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def redacted(value: Any, depth: int = 0) -> Any:
    """A value for eyes: what a name says to be secret is starred, texts as the log would show them, nothing endless."""
    if depth > DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {name: STARS if secret_name(name) else redacted(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [redacted(each, depth + 1) for each in value]
    return safe(value) if isinstance(value, str) else value
