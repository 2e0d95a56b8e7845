"""Text messages: the seam between jobs and who carries them. A provider sends one text, and is asked for one.

Twilio takes no idempotency key, so a text carries a reference of our own, by which its list of messages is searched.
"""

import base64
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

from worker import Answer, Context, Held, NoConnection, OutboundError, RefusedAddress, Request, TooLarge, secret

SECONDS = 15.0  # of a call
LISTED = 50  # messages of one number that are searched
LIST_BYTES = 1_048_576
MOST_WAIT_SECONDS = 600.0  # that a Retry-After is honoured


class Text(NamedTuple):
    """What is sent; `reference` is ours, and part of `body`."""

    id: int
    phone: str
    body: str
    reference: str


class Refused(Exception):
    """The provider will never send this text."""


class NotNow(Exception):
    """Nothing came of the call: the text was not taken, or the question not answered.

    Args:
        delay: seconds after which to try again, at the least.
    """

    def __init__(self, message: str, delay: float = 0.0) -> None:
        super().__init__(message)
        self.delay = delay


class InDoubt(Exception):
    """Nobody knows whether the provider has taken it."""


class Provider(Protocol):
    """Who carries texts."""

    async def send(self, context: Context, text: Text) -> str | None:
        """Send it once; answers with the provider's name for it, where it has one.

        Raises:
            Refused, NotNow, InDoubt: nothing else.
        """

    async def find(self, context: Context, text: Text) -> str | None:
        """The provider's name for a text that it has taken; None when it cannot tell.

        Raises:
            Refused: it took the text and gave it up.
            NotNow: it cannot be asked now.
        """


class Console:
    """Writes texts to the log instead; for demos. What it was asked before it cannot tell."""

    async def send(self, context: Context, text: Text) -> str | None:
        context.log.info("sms.console", to=text.phone, text=text.body)
        return None

    async def find(self, context: Context, text: Text) -> str | None:
        return None


class Twilio:
    """Twilio's REST API, version 2010-04-01.

    From the environment: TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, and either TWILIO_FROM, a number, or
    TWILIO_MESSAGING_SERVICE_SID; TWILIO_URL for another address than Twilio's own.
    """

    _GIVEN_UP = frozenset({"failed", "undelivered", "canceled"})

    async def send(self, context: Context, text: Text) -> str | None:
        sender = _sender()
        body = urlencode({"To": text.phone, **sender, "Body": text.body}).encode()
        request = _request("POST", _url(), body)
        try:
            answer = await context.http(request)
        except (Held, NoConnection, RefusedAddress) as error:
            raise _not_now(error) from None
        except OutboundError as error:
            raise InDoubt(str(error)) from None
        _judge(answer)
        return self._known(_decoded(answer))

    async def find(self, context: Context, text: Text) -> str | None:
        query = urlencode({"To": text.phone, "PageSize": LISTED})
        try:
            answer = await context.http(_request("GET", f"{_url()}?{query}"))
        except (Held, OutboundError) as error:
            raise _not_now(error) from None
        listed = _decoded(answer).get("messages")
        if answer.status != 200 or not isinstance(listed, list):
            raise NotNow(f"Twilio answered {answer.status} when it was asked for a text")
        for message in listed:
            if isinstance(message, dict) and text.reference in str(message.get("body")):
                return self._known(message) or "unnamed"
        return None  # it may be on its way all the same: what is not listed is no proof

    def _known(self, message: Mapping[str, Any]) -> str | None:
        status, sid = message.get("status"), message.get("sid")
        if isinstance(status, str) and status in self._GIVEN_UP:
            raise Refused(f"Twilio gave it up: {status}, code {message.get('error_code')}")
        return sid if isinstance(sid, str) else None


PROVIDERS: dict[str, Callable[[], Provider]] = {"console": Console, "twilio": Twilio}


def _not_now(error: Held | OutboundError) -> NotNow:
    return NotNow(str(error), error.delay if isinstance(error, Held) else 0.0)


def _judge(answer: Answer) -> None:
    """What an answer to a text says; no 5xx is proof that it was not taken."""
    if 200 <= answer.status < 300:
        return
    said = f"Twilio answered {answer.status}{_code(answer)}"
    if answer.status == 429:
        raise NotNow(said, min(answer.retry_after or 0.0, MOST_WAIT_SECONDS))
    if answer.status >= 500 or answer.status == 408:
        raise InDoubt(said)
    if answer.status in (401, 403, 404) or answer.status < 400:
        raise NotNow(f"{said}: are TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TWILIO_URL right?")
    raise Refused(said)


def _code(answer: Answer) -> str:
    code = _decoded(answer).get("code")
    return f", code {code}" if isinstance(code, int) else ""


def _decoded(answer: Answer) -> dict[str, Any]:
    """The answer's object, or an empty one: how it is told must not turn a taken text into another outcome."""
    try:
        said = answer.json()
    except (ValueError, TooLarge):
        return {}
    return said if isinstance(said, dict) else {}


def _request(method: str, url: str, body: bytes = b"") -> Request:
    keys = f"{_variable('TWILIO_ACCOUNT_SID')}:{_variable('TWILIO_AUTH_TOKEN')}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(keys).decode()}"}
    if body:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    return Request(method, url, headers, body, timeout=SECONDS, most=LIST_BYTES)


def _url() -> str:
    origin = os.environ.get("TWILIO_URL") or "https://api.twilio.com"
    return f"{origin.rstrip('/')}/2010-04-01/Accounts/{_variable('TWILIO_ACCOUNT_SID')}/Messages.json"


def _sender() -> dict[str, str]:
    if service := os.environ.get("TWILIO_MESSAGING_SERVICE_SID"):
        return {"MessagingServiceSid": service}
    return {"From": _variable("TWILIO_FROM")}


def _variable(name: str) -> str:
    try:
        value = secret(name)
    except ValueError as error:
        raise NotNow(f"{name}: {error}") from None
    if value is None:
        raise NotNow(f"{name} is not set")
    return value
