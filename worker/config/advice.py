"""Warnings: what is allowed and yet probably not meant. Each yields (key, message)."""

import re
from collections.abc import Mapping

from worker.config.job_type import JobType
from worker.config.lines import Path as Key
from worker.config.models import Config
from worker.config.rules import Found

_PLACEHOLDER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


def advise(config: Config, environ: Mapping[str, str]) -> Found:
    """Every warning about a configuration without faults."""
    if config.http is None and environ.get("PORT"):
        yield ("http",), "PORT is set, but without [http] nothing listens"
    if config.worker.prefetch > 10 * config.worker.concurrency:
        yield ("worker", "prefetch"), "jobs claimed far ahead of free slots wait here while other daemons are idle"
    for name, job in config.job.items():
        yield from _job(("job", name), job, config)


def _job(key: Key, job: JobType, config: Config) -> Found:
    if job.kind == "steps" and job.parallel > config.database.steps:
        yield (*key, "parallel"), f"more than the {config.database.steps} connections of database.steps"
    if job.timeout and job.deadline and job.timeout > job.deadline:
        yield (*key, "timeout"), "longer than the deadline, which ends the job first"
    if job.retry.first > job.retry.max:
        yield (*key, "retry"), "first is longer than max, so every delay is cut to max"
    for header, value in job.headers.items():
        if _PLACEHOLDER.search(value.get_secret_value()):
            yield (*key, "headers", header), "placeholders do not count in headers; the braces are sent as they are"
