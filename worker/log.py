"""structlog, set up once: JSON lines or a console, secrets starred, nothing a value holds can break or forge a line."""

import json as json_module
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from structlog.processors import ExceptionRenderer
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

from worker.config.redaction import STARS, mask, secret_name
from worker.job import Job

_LONGEST = 8_000  # characters of one value
_MOST = 100  # items of one list or table
_DEEPEST = 8
_SHORTEST_SECRET = 4  # anything shorter would star half of every line

# What moves a cursor, turns text around, ends a line for some readers, or cannot be encoded at all.
_HOSTILE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

_secrets: set[str] = set()
_any_secret: re.Pattern[str] | None = None


def configure(json: bool | None = None, level: str = "info") -> None:
    """Set up logging for the process, the standard library's included, to standard error.

    Args:
        json: JSON lines, or a console; None: a console on a terminal, JSON elsewhere.
        level: the least that is written: debug, info, warning, error.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            _exceptions(as_json),
            _tidy,
            _render_json if as_json else _console(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=_StandardError,
        cache_logger_on_first_use=False,
    )
    # Libraries log too, and asyncio reports lost exceptions there; their lines take the same way.
    logging.basicConfig(level=max(least, logging.WARNING), handlers=[_Bridge()], force=True)


def register_secrets(values: Iterable[str]) -> None:
    """Star these texts wherever they turn up, for the life of the process."""
    global _any_secret  # noqa: PLW0603 - one process, one set of secrets
    if not (new := {value for value in values if len(value) >= _SHORTEST_SECRET} - _secrets):
        return
    _secrets.update(new)
    longest_first = sorted(_secrets, key=len, reverse=True)
    _any_secret = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def starred(text: str) -> str:
    """`text` without the registered secrets."""
    return text if _any_secret is None else _any_secret.sub(STARS, text)


def job_fields(job: Job) -> dict[str, Any]:
    """What every line about a job carries; made when a line is written, not for every job."""
    return {
        "job_id": job.id,
        "job_type": job.job_type,
        "attempt": job.attempt,
        "correlation_id": job.correlation_id,
    }


def safe(text: str) -> str:
    """`text` without secrets, without what a terminal would obey, and not endless."""
    text = starred(text)
    # Cut before the patterns run: a value of megabytes must not cost seconds.
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text)} characters)"
    masked = mask(cut)
    return masked if masked.isprintable() else _HOSTILE.sub(_visible, masked)


class _StandardError:
    """Writes to whatever standard error is at that moment; a log that cannot be written stops no job."""

    def __init__(self, *_: object) -> None: ...

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)

    debug = info = warning = error = critical = exception = log = fatal = msg


class _Bridge(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:
            message = str(record.msg)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)  # libraries invent levels between
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info)


def _exceptions(as_json: bool) -> Processor:
    # Locals in a traceback are payloads and passwords.
    render = ExceptionRenderer(ExceptionDictTransformer(show_locals=False)) if as_json else ExceptionRenderer()

    def exceptions(logger: Any, method: str, event: EventDict) -> EventDict:
        try:
            return render(logger, method, event)
        except Exception as error:  # an author's exception may be deep, circular or hostile; the line is written anyhow
            event.pop("exc_info", None)
            return {**event, "exception": f"cannot be shown: {type(error).__name__}"}

    return exceptions


def _console() -> structlog.dev.ConsoleRenderer:
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    # The default formatter is rich's, which prints locals.
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def _render_json(_: object, __: str, event: EventDict) -> str:
    return json_module.dumps(event, ensure_ascii=True, separators=(",", ":"))


def _tidy(_: object, __: str, event: EventDict) -> EventDict:
    """The line as plain, harmless JSON values, the event first."""
    said = safe(_shown(event.pop("event", ""))).replace("\n", "\\n")
    first = {"event": said, "level": event.pop("level", None), "timestamp": event.pop("timestamp", None)}
    # Names of values are written in code, so nearly all are identifiers and harmless.
    rest = {key if key.isidentifier() else safe(key): _plain(key, value, 0) for key, value in event.items()}
    return first | rest


def _plain(name: str, value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if secret_name(name):
        return STARS
    if isinstance(value, int | float) and abs(value) < 1 << 63:  # not so: nan, inf, and what no reader of JSON takes
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth < _DEEPEST:
        return _plain_many(name, value, depth + 1)
    return safe(_shown(value))


def _plain_many(name: str, values: Any, depth: int) -> Any:
    """The first of a table's or list's items; how many were left out is said in their place."""
    left_out = len(values) - _MOST
    if isinstance(values, Mapping):
        table = {_shown(key): value for key, value, _ in zip(values, values.values(), range(_MOST), strict=False)}
        more = {"…": f"{left_out} more"} if left_out > 0 else {}
        return {safe(key): _plain(key, value, depth) for key, value in table.items()} | more
    items = [_plain(name, value, depth) for value, _ in zip(values, range(_MOST), strict=False)]
    return [*items, f"… {left_out} more"] if left_out > 0 else items


def _shown(value: object) -> str:
    try:
        return str(value) if isinstance(value, str | BaseException) else repr(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
