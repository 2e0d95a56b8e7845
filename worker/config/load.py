"""worker.toml + environment → Config, or all faults at once."""

import copy
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.config import rules
from worker.config.advice import advise
from worker.config.faults import Fault, Source, explain
from worker.config.lines import Path as Key
from worker.config.lines import locate
from worker.config.models import Config
from worker.config.render import written_secrets
from worker.config.sources import Sources
from worker.errors import ConfigError

_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AT_END = " (at end of document)"
_OPEN = "everybody on this machine can read it"

_LISTENER: Mapping[str, tuple[str, ...]] = {"environment": (), "database": ("url",), "http": ("listen", "keys")}

# Required keys that no rule looks at: with any value there, the rest of their table can be judged.
_STAND_INS: Mapping[str | int, str] = {"environment": "unknown", "sql": "unknown", "cron": "@daily"}


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in the file at `path`, with DATABASE_URL and PORT of the environment over it.

    Raises:
        ConfigError: with every fault there is, sorted by line.
    """
    return _loaded(path, environ, lambda raw: raw)


def load_listener(path: Path, environ: Mapping[str, str] = os.environ, listen: str | None = None) -> Config:
    """What a process needs that only looks and answers: `environment`, `database.url` and the listener of `[http]`,
    which is there also when the file has none. What jobs need, their secrets too, is neither read nor missed.

    Args:
        listen: instead of `http.listen` and PORT.

    Raises:
        ConfigError: as `load` does.
    """

    def part(raw: dict[str, Any]) -> dict[str, Any]:
        kept = {name: _only(raw[name], keys) for name, keys in _LISTENER.items() if name in raw}
        http = kept.setdefault("http", {})
        if listen and isinstance(http, dict):
            http["listen"] = listen
        return kept

    hidden = {"PORT"} if listen else set()
    return _loaded(path, {name: value for name, value in environ.items() if name not in hidden}, part)


def _only(value: Any, keys: Iterable[str]) -> Any:
    return {key: value[key] for key in keys if key in value} if isinstance(value, dict) else value


def _loaded(path: Path, environ: Mapping[str, str], part: Callable[[dict[str, Any]], dict[str, Any]]) -> Config:
    text = _read(path)
    raw, lines = _parse(path, text)
    raw = part(raw)
    given = Sources(environ)
    source = Source(path, lines, _override(raw, given))
    config, errors = _validate(raw, given)
    rest = _salvage(raw, given, errors) if errors else config
    faults = {explain(error, source) for error in errors if not _consequence(error, errors)}
    faults |= {source.fault(*found) for found in (rules.check(rest, raw) if rest else ())}
    if faults or config is None:
        raise ConfigError(fault.text for fault in sorted(faults))
    warnings = sorted(source.fault(*found) for found in (*advise(config, environ), *_exposed(config, path, text)))
    warnings += [Fault.of_environment(f"{file}: {_OPEN}: chmod o-r") for file in given.open_files()]
    config.bind(path, tuple(warning.text for warning in warnings))
    return config


def _exposed(config: Config, path: Path, text: str) -> rules.Found:
    if path.stat().st_mode & stat.S_IROTH:
        for key in written_secrets(config, text):
            yield key, f"{_OPEN}: chmod o-r, or take it from the environment as $NAME"


def _read(path: Path) -> str:
    try:
        # Windows editors begin a file with a byte order mark, which TOML does not know.
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; give another with --config"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: not UTF-8"]) from None


def _parse(path: Path, text: str) -> tuple[dict[str, Any], dict[Key, int]]:
    try:
        return tomllib.loads(text), locate(text)
    except RecursionError:
        raise ConfigError([f"{path}: nested too deeply"]) from None
    except ValueError as error:
        raise ConfigError([_syntax(path, text, str(error))]) from None


def _syntax(path: Path, text: str, said: str) -> str:
    if match := _AT_LINE.search(said):
        return f"{path}:{match[1]}: {said[: match.start()]} at column {match[2]}"
    if said.endswith(_AT_END):
        return f"{path}:{len(text.splitlines())}: {said.removesuffix(_AT_END)}, and the file ends"
    return f"{path}: {said}"


def _override(raw: dict[str, Any], environ: Sources) -> dict[Key, str]:
    """Put DATABASE_URL and PORT into `raw`; answers which keys came from where."""
    given: dict[Key, str] = {}
    database = raw.setdefault("database", {})
    if (origin := environ.origin("DATABASE_URL")) and isinstance(database, dict):
        database["url"] = "$DATABASE_URL"  # not its value: a dollar in a password begins no name
        given["database", "url"] = origin
    http = raw.get("http")
    if (port := environ.variable("PORT")) and isinstance(http, dict):
        http["listen"] = f"0.0.0.0:{port}"
        given["http", "listen"] = "PORT"
    return given


def _validate(raw: dict[str, Any], environ: Mapping[str, str]) -> tuple[Config | None, list[ErrorDetails]]:
    try:
        return Config.model_validate(raw, context={"environ": environ}), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _consequence(error: ErrorDetails, errors: list[ErrorDetails]) -> bool:
    """True for a list that is too short only because its items are faulty."""
    place = error["loc"]
    return error["type"] == "too_short" and any(other["loc"][: len(place)] == place != other["loc"] for other in errors)


def _salvage(raw: dict[str, Any], environ: Mapping[str, str], errors: list[ErrorDetails]) -> Config | None:
    """What is left without the faulty keys, so that the rules between keys are checked in the same look."""
    rest = copy.deepcopy(raw)
    config: Config | None = None
    while errors:
        size = len(errors)
        for error in errors:
            _drop(rest, error)
        config, errors = _validate(rest, environ)
        if len(errors) >= size:
            return None
    return config


def _drop(raw: dict[str, Any], error: ErrorDetails) -> None:
    key: Key = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] != "missing":
        _delete(raw, key)
    elif key[-1] in _STAND_INS:
        _put(raw, key, _STAND_INS[key[-1]])
    else:
        _delete(raw, key[:2])


def _put(raw: Any, key: Key, value: str) -> None:
    for part in key[:-1]:
        raw = raw[part]
    raw[key[-1]] = value


def _delete(raw: dict[Any, Any], key: Key) -> None:
    """Take the deepest table entry on the way to `key` out of `raw`."""
    table, name, inner = raw, key[0], raw
    for part in key:
        if not isinstance(inner, dict) or part not in inner:
            break
        table, name, inner = inner, part, inner[part]
    table.pop(name, None)
