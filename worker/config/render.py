"""The configuration for other eyes: JSON schema for editors, values without secrets for `worker config show`."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from worker.config import duration
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
        shown["job"][name]["retry"] = _retry(job.retry)
    # Names are judged where authors choose them; a coalesce or rate `key` is none of the secret kind.
    return {key: _hide(value, named=False) for key, value in shown.items()}


def secret_values(config: Config) -> set[str]:
    """Every secret of the configuration, for the log to star wherever it turns up."""
    found: set[str] = set()
    for secret in _secrets(config):
        value = secret.get_secret_value()
        found |= {value, value.removeprefix("Bearer ").removeprefix("Basic ")}
        if "://" in value and (password := urlsplit(value).password):
            found |= {password, unquote(password)}
    return found


def _retry(retry: Retry) -> dict[str, Any]:
    first, longest = duration.show(retry.first), duration.show(retry.max)
    return {"max_attempts": retry.max_attempts, "first": first, "factor": retry.factor, "max": longest}


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


def _secrets(config: Config) -> Iterator[SecretStr]:
    yield from filter(None, (config.database.url, config.database.direct_url))
    yield from (key.sha256 for key in (config.http.keys if config.http else ()))
    for job in config.job.values():
        yield from job.secrets
        yield from job.headers.values()
