"""The provider `twilio` against a carrier of its shape that refuses, is busy, is ill, or takes a text in silence."""

from collections.abc import AsyncIterator

import pytest

from tests.heart import job
from worker import Context, breaker
from worker.demo import carrier as faults
from worker.demo.carrier import ACCOUNT, NUMBER, TOKEN, Carrier, Fault
from worker.demo.receiver import Reply
from worker.jobs import sms
from worker.jobs.sms import InDoubt, NotNow, Refused, Text, Twilio
from worker.outbound import Outbound

TEXT = Text(1, "+14155550001", "Hi, when? (ABCD1234)", "ABCD1234")


@pytest.fixture
async def carrier(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Carrier]:
    monkeypatch.setattr(sms, "SECONDS", 0.5)
    async with Carrier() as made:
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
async def context() -> AsyncIterator[Context]:
    outbound = Outbound()
    yield Context([job()], {}, None, None, sender=outbound)  # type: ignore[arg-type]
    await outbound.close()


async def test_a_text_arrives_once_as_it_was_written(carrier: Carrier, context: Context) -> None:
    assert await Twilio().send(context, TEXT) == "SM" + "0" * 31 + "1"
    (call,) = carrier.calls
    assert (call.method, call.path) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
    assert call.headers["content-type"] == "application/x-www-form-urlencoded"
    (text,) = carrier.texts
    assert (text["to"], text["from"], text["body"]) == (TEXT.phone, NUMBER, TEXT.body)


async def test_a_messaging_service_takes_the_place_of_the_number(
    carrier: Carrier, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_MESSAGING_SERVICE_SID", "MG1")
    with pytest.raises(Refused):  # the carrier here insists on a number
        await Twilio().send(context, TEXT)
    assert b"MessagingServiceSid=MG1" in carrier.calls[0].body
    assert b"From=" not in carrier.calls[0].body


@pytest.mark.parametrize(
    ("fault", "raised", "said"),
    [
        (faults.refused(), Refused, "Twilio answered 400, code 21211"),
        (faults.busy(7), NotNow, "Twilio answered 429, code 20429"),
        (faults.ill(taken=True), InDoubt, "Twilio answered 500, code 20500"),
        (faults.ill(taken=False), InDoubt, "Twilio answered 500"),
        (Fault(Reply(503)), InDoubt, "Twilio answered 503"),
        (faults.silent(listed=True), InDoubt, "no whole answer within 0.5 s"),
        (Fault(Reply(201, b'{"sid"', manner="broken"), taken=True), InDoubt, "127.0.0.1:"),
        (Fault(Reply(manner="endless"), taken=True), None, "200"),
        (Fault(Reply(302, headers={"location": "http://169.254.169.254/"})), NotNow, "Twilio answered 302"),
        (Fault(Reply.json(201, {"sid": "SM1", "status": "failed"})), Refused, "gave it up: failed"),
    ],
)  # fmt: skip
async def test_what_an_answer_means(
    carrier: Carrier, context: Context, fault: Fault, raised: type[Exception] | None, said: str
) -> None:
    carrier.faults[TEXT.phone] = fault
    if raised is None:  # more of an answer than is read: it was taken all the same, and nothing else counts
        assert await Twilio().send(context, TEXT) is None
        return
    with pytest.raises(raised, match=said) as told:
        await Twilio().send(context, TEXT)
    assert getattr(told.value, "delay", 0.0) == (7.0 if fault == faults.busy(7) else 0.0)
    assert TOKEN not in str(told.value)


@pytest.mark.parametrize("told", [{}, {"sid": 7, "status": "queued"}, {"sid": ["SM1"], "status": ["failed"]}], ids=str)
async def test_a_text_that_was_taken_is_sent_however_that_is_told(
    carrier: Carrier, context: Context, told: dict[str, object]
) -> None:
    carrier.faults[TEXT.phone] = Fault(Reply.json(201, told), taken=True)
    assert await Twilio().send(context, TEXT) is None


async def test_where_nobody_listens_nothing_was_sent(
    carrier: Carrier, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    await carrier.stop()
    with pytest.raises(NotNow, match="127"):
        await Twilio().send(context, TEXT)
    with pytest.raises(NotNow, match="127"):
        await Twilio().find(context, TEXT)


async def test_who_is_held_back_is_told_for_how_long(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "FAILURES", 1)
    monkeypatch.setattr(breaker, "FAILING_SECONDS", 0.0)
    await carrier.stop()
    outbound = Outbound()
    calls = breaker.Breakers(outbound, lambda where, opens: None)
    context = Context([job()], {}, None, None, sender=calls)  # type: ignore[arg-type]
    with pytest.raises(NotNow):
        await Twilio().send(context, TEXT)
    for call in (Twilio().send, Twilio().find):
        with pytest.raises(NotNow, match="held back") as told:
            await call(context, TEXT)
        assert told.value.delay > 0
    await outbound.close()


@pytest.mark.parametrize("name", ["TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM"])
async def test_a_missing_variable_is_named_and_nothing_is_sent(
    carrier: Carrier, context: Context, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(NotNow, match=f"{name} is not set"):
        await Twilio().send(context, TEXT)
    assert carrier.calls == []


async def test_a_wrong_token_is_everybody_s_trouble_and_no_recipient_s(
    carrier: Carrier, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "wrong")
    with pytest.raises(NotNow, match="401, code 20003: are TWILIO_ACCOUNT_SID"):
        await Twilio().send(context, TEXT)
    with pytest.raises(NotNow, match="answered 401 when it was asked"):
        await Twilio().find(context, TEXT)


async def test_a_text_is_found_by_its_reference_among_others_to_the_number(carrier: Carrier, context: Context) -> None:
    for reference in ("FFFF0000", TEXT.reference, "0000FFFF"):
        await Twilio().send(context, TEXT._replace(body=f"Hi ({reference})"))
    assert await Twilio().find(context, TEXT) == "SM" + "0" * 31 + "2"
    assert await Twilio().find(context, TEXT._replace(reference="12345678")) is None
    assert await Twilio().find(context, TEXT._replace(phone="+14155550002")) is None
    carrier.texts[1]["status"] = "undelivered"
    with pytest.raises(Refused, match="gave it up: undelivered"):
        await Twilio().find(context, TEXT)


async def test_what_is_not_listed_cannot_be_told(carrier: Carrier, context: Context) -> None:
    carrier.faults[TEXT.phone] = faults.silent(listed=False)
    with pytest.raises(InDoubt):
        await Twilio().send(context, TEXT)
    assert await Twilio().find(context, TEXT) is None
    assert carrier.got(TEXT.phone) == [TEXT.body]


async def test_the_console_sends_nothing_and_knows_nothing(context: Context) -> None:
    assert await sms.Console().send(context, TEXT) is None
    assert await sms.Console().find(context, TEXT) is None
