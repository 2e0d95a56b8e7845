"""The kinds of values that keys of worker.toml hold; each says what is wrong in one short sentence."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
)

from worker import cron
from worker.config import addresses, duration, expansion, placeholders
from worker.config.redaction import STARS

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REACHED = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CRON = re.compile(r"@(?:hourly|daily|weekly|monthly|yearly)|[0-9A-Za-z*/,#-]+(?: +[0-9A-Za-z*/,#-]+){4}")
_SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_TAG = re.compile(r"[ -~]{1,200}")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

T = TypeVar("T")


class Section(BaseModel):
    """A table of worker.toml: unknown keys are faults, types are exact, nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, validate_default=True, hide_input_in_errors=True
    )


def default(value: object, **about: Any) -> Any:
    """A key that may be left out. The default is written as in the file ("5s", {}) and checked like a value."""
    return Field(value, **about)


def _matches(shape: re.Pattern[str], wanted: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if shape.fullmatch(text) is None:
            raise ValueError(f"must be {wanted}")
        return text

    return check


def _expand(text: object, info: ValidationInfo) -> object:
    if not isinstance(text, str):
        return text
    return expansion.expand(text, (info.context or {}).get("environ", {}))


def _database_url(secret: SecretStr) -> SecretStr:
    # The value stays out of the message: it holds the password.
    url = secret.get_secret_value()
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must begin with postgresql://")
    if not addresses.is_database(url):
        raise ValueError(
            "is no address: percent-encode characters such as / # ? [ ] in the password; ports are 1 to 65535"
        )
    return secret


def _qualified(text: str) -> str:
    parts = text.split(".")
    if len(parts) > 2 or not all(_IDENTIFIER.fullmatch(part) for part in parts):
        raise ValueError('must be the plain name of a function, "f" or "schema.f", in lower case')
    return text


def _search_path(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    if not all(_IDENTIFIER.fullmatch(part) for part in parts):
        raise ValueError('must be names of schemas, such as "club, public"')
    return ", ".join(parts)


def _python(text: str) -> str:
    module, colon, function = text.partition(":")
    if not (colon and function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError('must be "module:function"')
    return text


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65_535):
        raise ValueError('must be "host:port", the port at most 65535')
    return text


def _long(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < 32:
        raise ValueError("must be 32 characters or more, drawn at random")
    return secret


def _digest(secret: SecretStr) -> SecretStr:
    if _DIGEST.fullmatch(secret.get_secret_value()) is None:
        raise ValueError("must be the sha256 of the key: 64 lower-case hexadecimal digits")
    if secret.get_secret_value() == _SHA256_OF_NOTHING:
        raise ValueError("is the sha256 of nothing")
    return secret


def _signing(secret: SecretStr) -> SecretStr:
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("must be a Standard Webhooks secret: whsec_ and base64")
    return secret


def _header(secret: SecretStr) -> SecretStr:
    if _UNPRINTABLE.search(secret.get_secret_value()):
        raise ValueError("must not hold control characters")
    return secret


def _template(template: T) -> T:
    placeholders.check(template)
    if isinstance(template, str) and _UNPRINTABLE.search(template):
        raise ValueError("must not hold control characters")
    return template


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError('must be a network such as "10.0.0.0/8"') from None


def _zone(text: str) -> str:
    try:
        return text if text == "UTC" else ZoneInfo(text).key
    except (KeyError, ValueError, OSError):
        raise ValueError('must be a time zone such as "Europe/Berlin"') from None


def _comes(text: str) -> str:
    cron.Cron(text).after(datetime(2000, 1, 1, tzinfo=UTC))
    return text


def _json(value: T) -> T:
    """Refuse what TOML has and JSON has not: dates, times, nan and inf."""
    if isinstance(value, dict):
        for item in value.values():
            _json(item)
    elif isinstance(value, list):
        for item in value:
            _json(item)
    elif isinstance(value, float):
        if value - value != 0:
            raise ValueError("must be a value that JSON has; nan and inf are not")
    elif isinstance(value, str) and "\0" in value:
        raise ValueError("must not hold the character NUL")
    elif not isinstance(value, str | int):
        raise ValueError("must be a value that JSON has; write dates and times in quotes")
    return value


_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$", "examples": ["500ms", "30s", "5m", "7d"]}
)
_SHOWN = PlainSerializer(duration.show, return_type=str, when_used="json")
_STARRED = PlainSerializer(lambda _: STARS, return_type=str, when_used="json")
_EXPANDED = BeforeValidator(_expand)
_EXPANDED_SCHEMA = WithJsonSchema({"type": "string", "$comment": "$NAME is taken from the environment"})

Duration = Annotated[float, BeforeValidator(duration.parse), _SHOWN, _DURATION_SCHEMA]
Span = Annotated[float, BeforeValidator(duration.parse), Field(gt=0), _SHOWN, _DURATION_SCHEMA]

Environment = Annotated[
    str, AfterValidator(_matches(re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"), 'a short name such as "production"'))
]
Name = Annotated[str, AfterValidator(_matches(_NAME, "a name of the form ^[a-z][a-z0-9_]{0,62}$"))]
Identifier = Annotated[str, AfterValidator(_matches(_IDENTIFIER, "a plain SQL name in lower case"))]
PayloadKey = Annotated[str, AfterValidator(_matches(_KEY, "the name of a column or of a payload key"))]
HeaderName = Annotated[str, AfterValidator(_matches(_HEADER, "the name of a header"))]
Tag = Annotated[str, AfterValidator(_matches(_TAG, "a tag: 1 to 200 plain characters"))]
Cron = Annotated[
    str, AfterValidator(_matches(_CRON, 'five fields such as "0 2 * * *", or @daily')), AfterValidator(_comes)
]
Zone = Annotated[str, AfterValidator(_zone)]
Function = Annotated[str, AfterValidator(_qualified)]
SearchPath = Annotated[str, AfterValidator(_search_path)]
PythonTarget = Annotated[str, AfterValidator(_python)]
Listen = Annotated[str, AfterValidator(_listen)]
Template = Annotated[str, Field(min_length=1), AfterValidator(_template)]
Body = Annotated[dict[str, Any], AfterValidator(_json), AfterValidator(_template)]
Json = Annotated[dict[str, Any], AfterValidator(_json)]
Network = Annotated[str, AfterValidator(_network)]

# $NAME counts in these, and nowhere else.
DatabaseUrl = Annotated[SecretStr, _EXPANDED, AfterValidator(_database_url), _STARRED, _EXPANDED_SCHEMA]
Url = Annotated[str, _EXPANDED, AfterValidator(addresses.checked), _EXPANDED_SCHEMA]
HeaderValue = Annotated[SecretStr, _EXPANDED, AfterValidator(_header), _STARRED, _EXPANDED_SCHEMA]
SigningSecret = Annotated[SecretStr, _EXPANDED, AfterValidator(_signing), _STARRED, _EXPANDED_SCHEMA]
Secret = Annotated[SecretStr, _EXPANDED, AfterValidator(_long), _STARRED, _EXPANDED_SCHEMA]
HostName = Annotated[
    str,
    _EXPANDED,
    AfterValidator(_matches(_REACHED, 'what stands in a Host header: "worker.example.org", in lower case')),
    _EXPANDED_SCHEMA,
]
Digest = Annotated[SecretStr, _EXPANDED, AfterValidator(_digest), _STARRED, _EXPANDED_SCHEMA]

Item = TypeVar("Item")
# TOML knows lists only; what is loaded must not change.
Many = Annotated[tuple[Item, ...], Field(strict=False)]
