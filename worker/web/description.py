"""/openapi.json: made from the routes and models, once, and only for those who may look."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from worker.web.problems import Told
from worker.web.reply import reply
from worker.web.visit import Reader


def describe(application: FastAPI) -> None:
    """Serve the description of an application."""

    @application.get("/openapi.json", include_in_schema=False)
    async def openapi(who: Reader) -> Response:
        return reply(described(application))


def described(application: FastAPI) -> dict[str, Any]:
    """The description."""
    if application.openapi_schema is None:
        schema = get_openapi(
            title=application.title, version=application.version, description=application.description,
            tags=application.openapi_tags, routes=application.routes,
        )  # fmt: skip
        schemas = schema["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shapes, which nobody answers with here
            schemas.pop(name, None)
        schemas["Problem"] = Told.model_json_schema()
        application.openapi_schema = schema
    return application.openapi_schema
