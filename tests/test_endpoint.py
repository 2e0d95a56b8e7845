"""HTTP jobs against a real receiver: the call that jobs make, and what its answer means for each of them."""

import hmac
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from tests.heart import configured, job
from worker.context import Context
from worker.demo.receiver import Receiver, Reply
from worker.handlers import endpoint
from worker.handlers.endpoint import unite
from worker.outbound import Outbound, seconds_until
from worker.outcome import Completed, Failed, Retried

KEY, SECRET = "an-internal-key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD, THIRD = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
PLAIN = "[job.call]\nhttp = '{url}'\n"
CACHE = """
[job.call]
http = "{url}"
headers = {{ Authorization = "Bearer an-internal-key" }}
body = {{ tags = "{{tags}}", source = "worker", requestId = "{{correlation_id}}" }}
coalesce = {{ key = "cache", unite = ["tags"] }}
partial = {{ status = 207, failed = "failed_tags", into = "tags" }}
retry = {{ max_attempts = 1000, first = "1s", max = "1m" }}
"""
SHRINKS = PLAIN + "partial = {{ failed = 'failed', into = 'tags' }}\n"


@pytest.fixture
async def receiver():
    async with Receiver() as made:
        yield made


@pytest.fixture
async def calls(receiver, tmp_path):
    """From a declaration and jobs to their outcomes, over a real connection."""
    outbound = Outbound()

    async def call(toml, *jobs, build=endpoint.build):
        config = configured(tmp_path, "postgresql://unused", toml.format(url=receiver.url))
        return await build(config.job["call"], outbound)(Context(jobs, {}, None, None))

    yield call
    await outbound.close()


def row(number, payload, **fields):
    return job(id=number, job_type="call", text=orjson.dumps(payload).decode(), **fields)


def tagged(number, *tags, **fields):
    return row(number, {"tags": tags}, correlation_id=f"c{number}", **fields)


async def test_the_payload_goes_as_it_is(receiver, calls):
    text = '{"n": 123456789012345678901234567890, "t": "é"}'
    receiver.plan(Reply(200))
    assert await calls(PLAIN, job(id=7, text=text)) == [Completed({"status": 200})]
    (call,) = receiver.calls
    assert (call.method, call.body.decode(), call.headers["webhook-id"]) == ("POST", text, "msg_7")


async def test_success_is_any_status_of_200(receiver, calls):
    receiver.plan(Reply(200), Reply(204), Reply(299))
    for status in (200, 204, 299):
        assert await calls(PLAIN, row(1, {})) == [Completed({"status": status})]


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 429, 500, 503])
async def test_all_else_is_an_error_with_the_answers_beginning(receiver, calls, status):
    receiver.plan(Reply(status, b"no\n\x00\x1b[31m way " + b"x" * 1000, {"location": receiver.url}))
    (outcome,) = await calls(PLAIN, row(1, {}))
    assert isinstance(outcome, Retried)
    assert outcome.error.startswith(f"BadAnswer: answered {status}: no [31m way xxx")
    assert len(outcome.error) < 250
    assert len(receiver.calls) == 1


async def test_gone_is_permanent(receiver, calls):
    receiver.plan(Reply(410))
    assert await calls(PLAIN, row(1, {})) == [Failed("Permanent: answered 410", "permanent")]


async def test_the_last_attempt_is_exhausted(receiver, calls):
    receiver.plan(Reply(500), Reply.json(207, {"failed": ["a"]}))
    (outcome,) = await calls(PLAIN, row(1, {}, attempt=5))
    assert (type(outcome), outcome.reason) == (Failed, "exhausted")
    (outcome,) = await calls(SHRINKS, tagged(1, "a", attempt=5))
    assert (type(outcome), outcome.reason) == (Failed, "exhausted")


async def test_no_answer_is_an_error_like_others(receiver, calls):
    receiver.plan(Reply(manner="broken"), Reply(manner="hang"))
    assert (await calls(PLAIN, row(1, {})))[0].error.startswith("Unreachable: 127.0.0.1:")
    (outcome,) = await calls(PLAIN + "timeout = '300ms'\n", row(1, {}))
    assert outcome.error.startswith("TooSlow: 127.0.0.1:")
    assert outcome.error.endswith("within 0.3 s")
    await receiver.stop()
    assert (await calls(PLAIN, row(1, {})))[0].error.startswith("NoConnection: 127.0.0.1:")


async def test_success_does_not_hang_on_the_size_of_its_body(receiver, calls):
    receiver.plan(Reply(200, manner="endless"), Reply(207, manner="endless"))
    assert await calls(PLAIN, row(1, {})) == [Completed({"status": 200})]
    (outcome,) = await calls(SHRINKS, tagged(1, "a"))  # but what is needed must be there
    assert outcome.error.startswith("TooLarge: ")
    assert outcome.payload is None


async def test_an_echo_of_our_own_headers_shows_no_secret(receiver, calls):
    receiver.plan(Reply(500, f"you sent Bearer {KEY} and {KEY} and {SECRET}".encode()))
    (outcome,) = await calls(CACHE + f'secrets = ["{SECRET}"]\n', tagged(1, "a"))
    assert outcome.error == "BadAnswer: answered 500: you sent *** and *** and ***"


async def test_retry_after_is_honoured_up_to_its_bound(receiver, calls):
    date = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    receiver.plan(*(Reply(503, headers={"retry-after": value}) for value in ("90", "99999999", date)))
    toml = PLAIN + "retry_after_max = '5m'\nretry = {{ first = '1ms', max = '1ms' }}\n"
    assert [(await calls(toml, row(1, {})))[0].delay for _ in range(3)] == [90.0, 300.0, 300.0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0.0), ("", 0.0), ("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("-7", 0.0), ("7.5", 0.0), ("²", 0.0),
        ("soon", 0.0),
        ("9" * 9_000, 600.0), ("Sun, 22 Nov 2026 12:00:30 GMT", 30.0), ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 22 Nov 2026 12:00:30 -0000", 30.0), ("Sunday, 22-Nov-26 12:00:30 GMT", 30.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600.0), ("Sun, 99 Nov 2026 12:00:30 GMT", 0.0),
    ],
)  # fmt: skip
def test_what_retry_after_says(value, seconds):
    assert min(seconds_until(value, datetime(2026, 11, 22, 12, tzinfo=UTC)) or 0.0, 600.0) == seconds


@given(st.text())
def test_no_retry_after_breaks_anything(value):
    assert (seconds_until(value, datetime(2026, 11, 22, tzinfo=UTC)) or 0.0) >= 0.0


async def test_the_method_and_a_template(receiver, calls):
    toml = PLAIN + "method = 'DELETE'\nbody = {{ text = 'job {{id}} of {{tenant_id}}: {{n}}', n = '{{n}}' }}\n"
    await calls(toml, row(3, {"n": [1]}, tenant_id="t"))
    assert (receiver.calls[0].method, receiver.calls[0].json) == ("DELETE", {"text": "job 3 of t: [1]", "n": [1]})
    await calls(PLAIN + "method = 'GET'\n", row(3, {"n": 1}))
    assert (receiver.calls[1].method, receiver.calls[1].body) == ("GET", b"")


@pytest.mark.parametrize("word", ["a\r\nX-Evil: 1", "a\nHost: evil", "\x00", "é\u202e", "a" * 60_000])
async def test_what_a_row_says_is_in_the_body_and_nowhere_else(receiver, calls, word):
    """Neither in a header, nor in the request's line, nor as a second request."""
    toml = PLAIN + "headers = {{ X-Word = 'said {{word}}' }}\nbody = {{ said = '{{word}}', of = '{{tenant_id}}' }}\n"
    plain = await calls(toml, row(1, {"word": "x"}, tenant_id="t"))
    (outcome,) = await calls(toml, row(1, {"word": word, word[:9]: word}, tenant_id=word, correlation_id=word))
    assert type(outcome) is type(plain[0])
    harmless, call = receiver.calls
    assert call.json == {"said": word, "of": word}
    same = {
        name: value for name, value in harmless.headers.items() if name not in ("content-length", "webhook-timestamp")
    }
    assert same.items() <= call.headers.items()
    assert call.headers.keys() == harmless.headers.keys()
    assert (call.method, call.path) == (harmless.method, harmless.path)


async def test_a_signed_call_verifies_beside_the_bearer_key(receiver, calls):
    receiver.plan(Reply(200))
    await calls(CACHE + f'secrets = ["{SECRET}"]\n', tagged(1, "a"))
    (call,) = receiver.calls
    assert call.headers["authorization"] == f"Bearer {KEY}"
    Webhook(SECRET).verify(call.body, dict(call.headers))


async def test_while_secrets_rotate_both_sign_and_a_third_verifies_nothing(receiver, calls):
    """What the receiver's side sees, by the Standard Webhooks library and by hand."""
    await calls(CACHE + f'secrets = ["{SECRET}", "{OLD}"]\n', tagged(1, "a"))
    (call,) = receiver.calls
    headers = dict(call.headers)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + call.body
    by_hand = [
        f"v1,{b64encode(hmac.digest(b64decode(secret.removeprefix('whsec_')), signed, 'sha256')).decode()}"
        for secret in (SECRET, OLD)
    ]
    assert headers["webhook-signature"].split() == by_hand  # newest first
    for each in (SECRET, OLD):
        Webhook(each).verify(call.body, headers)
    longer_ago = str(int(headers["webhook-timestamp"]) - 3600)
    for secret, body, header in (
        (THIRD, call.body, headers),
        (SECRET, call.body.replace(b"a", b"b"), headers),
        (SECRET, call.body, headers | {"webhook-id": "msg_2"}),
        (OLD, call.body, headers | {"webhook-timestamp": longer_ago}),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, header)


def test_the_library_signs_as_the_specification_has_it():
    at = datetime.fromtimestamp(1614265330, UTC)
    signature = Webhook(SECRET).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_many_jobs_make_one_call(receiver, calls):
    outcomes = await calls(CACHE, tagged(4, "a", "b"), tagged(5, "b", "c"), tagged(9))
    assert outcomes == [Completed({"status": 200})] * 3
    (call,) = receiver.calls
    assert call.json == {"tags": ["a", "b", "c"], "source": "worker", "requestId": "c4"}
    assert receiver.tags == ["a", "b", "c"]


async def test_the_default_body_of_a_united_call_names_its_jobs(receiver, calls):
    await calls(
        PLAIN + "coalesce = {{ key = 'k', unite = ['tags'] }}\n", row(1, {"tags": [1], "x": 1}), row(2, {"x": 2})
    )
    assert receiver.calls[0].json == {"tags": [1], "x": 1, "parents": [1, 2]}


async def test_one_error_is_everybodys(receiver, calls):
    receiver.plan(Reply(503, headers={"retry-after": "100"}))
    outcomes = await calls(CACHE, tagged(1, "a"), tagged(2, "b", attempt=5), tagged(3, "c"))
    assert [type(outcome) for outcome in outcomes] == [Retried, Failed, Retried]  # each by its own attempts
    assert (outcomes[0].delay, outcomes[0].payload) == (100.0, None)


async def test_each_job_keeps_only_what_failed_of_its_own(receiver, calls):
    receiver.plan(Reply.partial(["b", "c"]))
    jobs = [tagged(1, "a", "b"), tagged(2, "a"), row(3, {"tags": ["c", "b", "c"], "x": 1}), tagged(4)]
    first, second, third, fourth = await calls(CACHE, *jobs)
    assert first.payload == {"tags": ["b"]}
    assert first.error == "PartlyFailed: answered 207; 1 of 2 tags left"
    assert second == fourth == Completed({"status": 207})
    assert third.payload == {"tags": ["c", "b", "c"], "x": 1}


async def test_a_partial_answer_with_nothing_failed_is_success(receiver, calls):
    receiver.plan(Reply.partial([]))
    assert await calls(CACHE, tagged(1, "a")) == [Completed({"status": 207})]


async def test_values_are_equal_as_json_has_it(receiver, calls):
    receiver.plan(Reply.json(207, {"failed": [{"b": 2, "a": 1}]}), Reply.json(207, {"failed": [1]}))
    (outcome,) = await calls(SHRINKS, row(1, {"tags": [{"a": 1, "b": 2}, {"a": 1}]}))
    assert outcome.payload == {"tags": [{"a": 1, "b": 2}]}
    (outcome,) = await calls(SHRINKS, row(1, {"tags": [True, 1, 1.0, "1"]}))
    assert outcome.payload == {"tags": [1]}


async def test_long_numbers_go_out_and_are_known_again_with_every_digit(receiver, calls):
    payload = '{"tags": [12345678901234567890123, 12345678901234567890124]}'
    receiver.plan(Reply(207, b'{"failed_tags": [12345678901234567890124]}'))
    (outcome,) = await calls(CACHE, job(job_type="call", text=payload))
    assert b'"tags":[12345678901234567890123,12345678901234567890124]' in receiver.calls[0].body
    assert outcome.payload == {"tags": [12345678901234567890124]}


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"{}", b'{"failed_tags": "a"}', b'{"failed_tags": ["club:a"]}', b"[" * 2000,
             b'{"failed_tags": [' + b"[" * 600 + b"]" * 600 + b"]}"]
)  # fmt: skip
async def test_a_partial_answer_that_cannot_be_read_loses_nothing(receiver, calls, body):
    receiver.plan(Reply(207, body, {"retry-after": "30"}))
    outcomes = await calls(CACHE, tagged(1, "a"), tagged(2, "b"))
    assert [(type(outcome), outcome.payload) for outcome in outcomes] == [(Retried, None)] * 2
    assert outcomes[0].error.startswith("BadAnswer: answered 207")


async def test_an_unfit_row_fails_alone(receiver, calls):
    deep = job(id=6, text='{"tags": [' + "[" * 600 + "]" * 600 + "]}")
    unfit = [row(1, {"tags": "a"}), row(2, {}), row(3, [1]), job(id=4, text="[" * 5000), deep]
    outcomes = await calls(CACHE, *unfit, tagged(8, "b"))
    assert [(type(outcome), outcome.reason) for outcome in outcomes[:-1]] == [(Failed, "invalid")] * 5
    assert outcomes[-1] == Completed({"status": 200})
    assert receiver.calls[0].json == {"tags": ["b"], "source": "worker", "requestId": "c8"}


async def test_unfit_rows_alone_make_no_call(receiver, calls):
    (outcome,) = await calls(CACHE, row(1, {"tag": "a"}))
    assert outcome == Failed("InvalidJob: unknown placeholder {tags}: the job has no such payload key", "invalid")
    assert receiver.calls == []


async def test_an_unfit_row_stays_invalid_when_the_call_fails(receiver, calls):
    receiver.plan(Reply(500))
    assert [type(outcome) for outcome in await calls(CACHE, row(1, {}), tagged(2, "a"))] == [Failed, Retried]


async def test_the_webhook_id_is_that_of_the_content(receiver, calls):
    receiver.plan(*[Reply(500)] * 7)
    for jobs in ([1], [1], [1, 2], [1, 2], [1, 2, 3], [2]):
        await calls(CACHE, *(tagged(number, f"t{number}") for number in jobs))
    await calls(CACHE, tagged(1, "t1", attempt=2))
    alone, again, two, two_again, three, other, later = (call.headers["webhook-id"] for call in receiver.calls)
    assert alone == again == later
    assert two == two_again
    assert len({alone, two, three, other}) == 4
    assert alone.startswith("msg_1_")
    assert "." not in alone


async def test_what_is_switched_off_is_posted_to_the_fallback(receiver, calls):
    receiver.plan(Reply(202), Reply(500))
    toml = "[job.call]\npython = 'a:b'\nfallback = '{url}'\nheaders = {{ X-Key = 'k' }}\n"
    assert await calls(toml, row(1, {"a": 1}), build=endpoint.build_fallback) == [Completed({"status": 202})]
    (call,) = receiver.calls
    assert (call.json, call.headers["x-key"], call.headers["webhook-id"]) == ({"a": 1}, "k", "msg_1")
    (outcome,) = await calls(toml, row(1, {"a": 1}), build=endpoint.build_fallback)
    assert isinstance(outcome, Retried)


async def test_the_fallback_of_an_http_job_gets_the_payload_alone(receiver, calls):
    receiver.plan(Reply(200))
    assert await calls(CACHE + "fallback = '{url}'\n", tagged(1, "a"), build=endpoint.build_fallback)
    (call,) = receiver.calls
    assert (call.json, call.headers["webhook-id"]) == ({"tags": ["a"]}, "msg_1")


TAGS = st.lists(st.sampled_from("abcde"), max_size=4)


@given(st.lists(TAGS, min_size=1, max_size=6))
def test_united_arrays_hold_each_value_once(arrays):
    jobs = [tagged(number, *tags) for number, tags in enumerate(arrays)]
    united = unite(jobs, ["tags", "other"])
    assert set(united["tags"]) == {tag for tags in arrays for tag in tags}
    assert len(set(united["tags"])) == len(united["tags"])
    assert united["parents"] == list(range(len(arrays)))
    assert "other" not in united
