"""The configuration for other eyes: JSON schema for editors, values without secrets for `worker config show`."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from pydantic import SecretStr

from worker.config import duration
from worker.config.job_type import JobType
from worker.config.lines import Path as Key
from worker.config.models import Config
from worker.config.redaction import STARS, mask, secret_name
from worker.retry import Retry

_FREE = ("settings", "payload", "body")  # tables whose keys are the author's own


def config_schema() -> dict[str, Any]:
    """JSON schema of worker.toml, for editors and for check-jsonschema."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def render(config: Config) -> dict[str, Any]:
    """Every value in force, defaults included, as it would be written; secrets are stars."""
    shown = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    shown["retry"] = _retry(config.retry)
    for name, job in config.job.items():
        shown["job"][name] |= {"retry": _retry(job.retry), **_addresses(job)}
    # Names are judged where authors choose them; a coalesce or rate `key` is none of the secret kind.
    return {key: _hide(value, named=False) for key, value in shown.items()}


def secret_values(config: Config) -> set[str]:
    """Every secret of the configuration, for the log to star wherever it turns up."""
    found: set[str] = set()
    for _, value in _secrets(config):
        found |= {value, *_parts(value)}
    return found


def written_secrets(config: Config, text: str) -> Iterator[Key]:
    """The keys whose secrets stand in the file's own text; headers count where their name is that of a secret."""
    for key, value in _secrets(config):
        open_header = key[2:3] == ("headers",) and not secret_name(str(key[-1]))
        if not open_header and key[0] != "http" and any(len(part) > 3 and part in text for part in _parts(value)):
            yield key


def _retry(retry: Retry) -> dict[str, Any]:
    first, longest = duration.show(retry.first), duration.show(retry.max)
    return {"max_attempts": retry.max_attempts, "first": first, "factor": retry.factor, "max": longest}


def _addresses(job: JobType) -> dict[str, str]:
    """The addresses that a job calls, without what their queries say: some receivers take their key there."""
    urls = {"http": job.http, "fallback": job.fallback}
    return {key: urlunsplit(urlsplit(url)._replace(query=STARS)) for key, url in urls.items() if url and "?" in url}


def _hide(value: Any, *, named: bool) -> Any:
    """Stars for passwords in addresses and, where `named`, for values that are named like a secret."""
    if isinstance(value, dict):
        return {
            key: STARS if named and secret_name(key) else _hide(item, named=named or key in _FREE)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_hide(item, named=named) for item in value]
    return mask(value) if isinstance(value, str) else value


def _parts(value: str) -> set[str]:
    """What is secret in a value: the password of an address, the key without its scheme, else all of it."""
    if "://" in value:
        password = urlsplit(value).password
        return {password, unquote(password)} if password else set()
    return {value.removeprefix("Bearer ").removeprefix("Basic ")}


def _secrets(config: Config) -> Iterator[tuple[Key, str]]:
    database, keys = config.database, config.http.keys if config.http else ()
    given: list[tuple[Key, SecretStr | None]] = [
        (("database", "url"), database.url),
        (("database", "direct_url"), database.direct_url),
    ]
    given += [(("http", "keys", index, "sha256"), key.sha256) for index, key in enumerate(keys)]
    if config.http:
        given.append((("http", "session_secret"), config.http.session_secret))
    for name, job in config.job.items():
        given += [(("job", name, "secrets", index), secret) for index, secret in enumerate(job.secrets)]
        given += [(("job", name, "headers", header), value) for header, value in job.headers.items()]
        yield from _named(("job", name, "settings"), job.settings)
        for key, url in (("http", job.http), ("fallback", job.fallback)):
            named = parse_qsl(urlsplit(url).query) if url else ()
            yield from ((("job", name, key), value) for word, value in named if secret_name(word))
    yield from ((key, secret.get_secret_value()) for key, secret in given if secret)


def _named(key: Key, table: dict[str, Any]) -> Iterator[tuple[Key, str]]:
    """Texts whose name says that they are secret, in tables whose keys are the author's own."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _named((*key, name), value)
        elif isinstance(value, str) and secret_name(name):
            yield (*key, name), value
