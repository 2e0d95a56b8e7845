"""A carrier of text messages: a local server that takes and lists them in Twilio's shape, for the demo and for tests.

It can be told to fail for a number: to refuse, to be busy, to take the text and then say nothing.
"""

import asyncio
import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from worker.demo.receiver import Call, Receiver, Reply

ACCOUNT, TOKEN, NUMBER = "AC" + "0" * 32, "a-token-of-the-demo", "+15005550006"
MISSING, NOT_A_NUMBER = 21604, 21211  # Twilio's codes


@dataclass(frozen=True)
class Fault:
    """What happens to the next text to a number.

    Attributes:
        taken: the text is on its way all the same.
        listed: and found when the carrier is asked for it.
    """

    reply: Reply
    taken: bool = False
    listed: bool = True


class Carrier(Receiver):
    """`async with Carrier() as carrier`: texts sent with `carrier.environment()` arrive in `carrier.texts`.

    Attributes:
        texts: what was taken, in order: sid, to, from, body, status, and whether it is listed.
        faults: by number; each happens once.
        pace: seconds that it takes over each text.
        mute: it cannot be asked what it took.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[dict[str, Any]] = []
        self.faults: dict[str, Fault] = {}
        self.pace = 0.0
        self.mute = False
        self._gates: dict[str, asyncio.Event] = {}

    def environment(self) -> dict[str, str]:
        """The variables by which the provider `twilio` finds the way here."""
        return {
            "TWILIO_URL": self.origin,
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_FROM": NUMBER,
        }

    def got(self, number: str) -> list[str]:
        """The texts that a number got."""
        return [text["body"] for text in self.texts if text["to"] == number]

    def slow(self, number: str) -> asyncio.Event:
        """Take the next text to a number, and answer once the event is set."""
        self._gates[number] = gate = asyncio.Event()
        return gate

    async def _reply(self, call: Call) -> Reply:
        reply = await super()._reply(call)
        if call.method == "POST" and (gate := self._gates.pop(_form(call.body.decode()).get("To", ""), None)):
            await gate.wait()
        await asyncio.sleep(self.pace)
        return reply

    def _answer(self, call: Call) -> Reply:
        keys = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        if call.headers.get("authorization") != f"Basic {keys}":
            return Reply.json(401, {"code": 20003, "message": "Authenticate", "status": 401})
        where = urlsplit(call.path)
        if where.path != f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json":
            return Reply.json(404, {"code": 20404, "message": "not found", "status": 404})
        if call.method == "GET":
            return Reply(500) if self.mute else self._list(_form(where.query))
        return self._take(_form(call.body.decode()))

    def _take(self, form: dict[str, str]) -> Reply:
        missing = {"To", "Body", "From"} - form.keys()
        if missing:
            return Reply.json(400, {"code": MISSING, "message": f"{sorted(missing)} required", "status": 400})
        fault = self.faults.pop(form["To"], None)
        if fault is None or fault.taken:
            text = self._text(form, listed=fault is None or fault.listed)
        return fault.reply if fault else Reply.json(201, _shown(text))

    def _text(self, form: dict[str, str], *, listed: bool) -> dict[str, Any]:
        text = {
            "sid": f"SM{len(self.texts) + 1:032x}", "to": form["To"], "from": form["From"], "body": form["Body"],
            "status": "queued", "error_code": None, "listed": listed,
        }  # fmt: skip
        self.texts.append(text)
        return text

    def _list(self, query: dict[str, str]) -> Reply:
        found = [_shown(text) for text in reversed(self.texts) if text["listed"] and text["to"] == query.get("To")]
        return Reply.json(200, {"messages": found[: int(query.get("PageSize", "50"))], "page": 0})


def busy(seconds: int) -> Fault:
    """429: not taken, and not to be asked for so long."""
    body = {"code": 20429, "message": "Too Many Requests", "status": 429}
    return Fault(Reply.json(429, body, **{"retry-after": str(seconds)}))


def refused() -> Fault:
    """400: this is no number that a text can go to."""
    return Fault(Reply.json(400, {"code": NOT_A_NUMBER, "message": "not a phone number", "status": 400}))


def ill(*, taken: bool) -> Fault:
    """500, and the text is on its way or not."""
    return Fault(Reply.json(500, {"code": 20500, "message": "internal", "status": 500}), taken=taken)


def silent(*, listed: bool) -> Fault:
    """It takes the text and never answers."""
    return Fault(Reply(manner="hang"), taken=True, listed=listed)


def _form(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}


def _shown(text: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in text.items() if name != "listed"}
