"""The JSON API: one file a subject."""

from fastapi import APIRouter

from worker.web.api import jobs, many, queue, schedules, types

router = APIRouter()
# Before /jobs/{id}, or "bulk" would be taken for a job.
for part in (many, jobs, types, schedules, queue):
    router.include_router(part.router, prefix="/api/v1")
