"""The receiver's side of the cache webhook, for FastAPI.

    pip install fastapi uvicorn
    INTERNAL_API_KEY=… uvicorn fastapi_receiver:app

The worker calls at least once: the same tags may come twice, which for a cache does no harm. `webhook-id` is the same
for every try of one call, for receivers that must not do a thing twice.
"""

import hmac
import os
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

KEY = os.environ["INTERNAL_API_KEY"]

app = FastAPI(docs_url=None, redoc_url=None)


class Invalidation(BaseModel):
    """What the worker sends: see `body` of [job.invalidate_cache] in worker.toml."""

    tags: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1)
    source: str
    requestId: str | None = None


def authorize(authorization: Annotated[str, Header()] = "") -> None:
    """Compare the bearer key in constant time."""
    if not hmac.compare_digest(authorization.encode(), f"Bearer {KEY}".encode()):
        raise HTTPException(401, "unauthorized")


def invalidate(tag: str) -> None:
    """Make one tag stale in your cache; raise when that fails."""


@app.exception_handler(RequestValidationError)
async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
    """400 for a body that is none; FastAPI's own answer would be 422."""
    return JSONResponse({"success": False, "error": "malformed body"}, 400)


@app.post("/api/internal/cache/invalidate", dependencies=[Depends(authorize)])
def receive(asked: Invalidation, response: Response) -> dict[str, object]:
    """200 when every tag is stale, 207 with `failed_tags` when some are not: only those come again."""
    failed = []
    for tag in dict.fromkeys(asked.tags):
        try:
            invalidate(tag)
        except Exception:
            failed.append(tag)
    if failed:
        response.status_code = 207
    done = [tag for tag in asked.tags if tag not in failed]
    return {"success": not failed, "invalidated_tags": done, "failed_tags": failed}
