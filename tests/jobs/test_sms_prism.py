"""The provider `twilio` against Twilio's own published description of its API, on a mock server that holds us to it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest

from tests.heart import job
from tests.jobs.prism import Missing, described, prism
from worker import Context
from worker.demo.carrier import ACCOUNT, TOKEN, Carrier
from worker.jobs.sms import NotNow, Refused, Text, Twilio
from worker.outbound import Outbound, Request

PATH = "/2010-04-01/Accounts/{AccountSid}/Messages.json"
TEXT = Text(1, "+14155552345", "Hi, when? (ABCD1234)", "ABCD1234")


@pytest.fixture(scope="module")
def twilio() -> Any:
    try:
        return described()
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def origin(twilio: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prism(tmp_path_factory.mktemp("prism") / "log") as made:
        yield made


@pytest.fixture
async def context(origin: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Context]:
    for name, value in (("URL", origin), ("ACCOUNT_SID", ACCOUNT), ("AUTH_TOKEN", TOKEN), ("FROM", "+14155550100")):
        monkeypatch.setenv(f"TWILIO_{name}", value)
    outbound = Outbound()
    yield Context([job()], {}, None, None, sender=outbound)  # type: ignore[arg-type]
    await outbound.close()


async def test_twilio_s_description_takes_our_text(context: Context) -> None:
    assert await Twilio().send(context, TEXT) == "SM" + "a" * 32  # of the description's own example


async def test_and_our_question_for_one(context: Context) -> None:
    assert await Twilio().find(context, TEXT) is None
    assert await Twilio().find(context, TEXT._replace(reference="testing")) is not None  # as its example says


async def test_the_mock_server_does_hold_us_to_it(
    context: Context, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = await context.http(Request("POST", f"{origin}{PATH.format(AccountSid=ACCOUNT)}"))
    assert bare.status == 401
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "no account")
    with pytest.raises((Refused, NotNow)):
        await Twilio().send(context, TEXT)


def test_twilio_takes_no_key_against_a_second_text_so_a_reference_it_must_be(twilio: Any) -> None:
    assert "idempot" not in orjson.dumps(twilio["paths"][PATH]).decode().lower()


def test_the_carrier_of_our_tests_speaks_as_the_description_says(twilio: Any) -> None:
    carrier = Carrier()
    taken = carrier._take({"To": TEXT.phone, "From": "+14155550100", "Body": TEXT.body}).body
    listed = carrier._list({"To": TEXT.phone}).body
    message = twilio["components"]["schemas"]["api.v2010.account.message"]["properties"]
    page = twilio["paths"][PATH]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert set(_json(taken)) <= set(message)
    assert set(_json(listed)) <= set(page)
    assert set(_json(listed)["messages"][0]) <= set(message)
    assert {"queued", "failed", "undelivered", "canceled"} <= set(
        twilio["components"]["schemas"]["message_enum_status"]["enum"]
    )


def _json(body: bytes) -> Any:
    return orjson.loads(body)
