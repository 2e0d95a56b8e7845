"""The gate: who comes in, under which name, and what another site can make a browser do (nothing)."""

import asyncio
from itertools import product
from urllib.parse import quote

import pytest

from tests.heart import enqueue
from tests.web.site import ALL, KEYS, READ, site_config, standing, state
from worker.web.gate import POLICY

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
ROUTES = (
    "/api/v1/jobs", "/api/v1/jobs/1", "/api/v1/jobs/1/cancel", "/api/v1/jobs/1/retry", "/api/v1/jobs/bulk/retry",
    "/api/v1/jobs/bulk/cancel", "/api/v1/jobs/bulk/1", "/api/v1/types", "/api/v1/types/work/pause",
    "/api/v1/types/work/resume", "/api/v1/schedules", "/api/v1/schedules/a/run", "/api/v1/schedules/a/pause",
    "/api/v1/schedules/a/resume", "/api/v1/stats", "/api/v1/events", "/openapi.json", "/admin", "/admin/jobs",
    "/api/admin/enqueue-stats-job", "/api/admin/background-jobs", "/api/admin/system-health",
    "/api/superadmin/trigger-all-stats", "/api/sync/start", "/api/sync/status",
)  # fmt: skip
TRICKS = (
    "/", "//api/v1/jobs", "/api/v1//jobs", "/api/v1/jobs/", "/api/v1/./jobs", "/api/v1/../v1/jobs", "/API/V1/JOBS",
    "/healthz/../api/v1/jobs", "/healthz/..%2fapi/v1/jobs", "/%2e%2e/api/v1/jobs", "/api/v1/jobs%00",
    "/api/v1/jobs%0d%0aX: y", "/api/v1/jobs;a=b", "/docs", "/redoc", "/.env", "/admin/login/../jobs",
    "/admin/static/../../gate.py", "/admin/static/..%2f..%2fgate.py", "/admin/login/x",
)  # fmt: skip
BROWSER = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


@pytest.fixture
async def side(tmp_path, dsn):
    async with standing(site_config(tmp_path, dsn)) as found:
        yield found


async def raw(port, method, path, *headers):
    """Status and body for a path that no client would clean up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    said = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_without_a_key_every_path_and_method_is_answered_alike(side, connection):
    await enqueue(connection)
    before, answers = await state(connection), set()
    for path, method in product((*ROUTES, *TRICKS, "/api/v1/none"), METHODS):
        if path.startswith("/admin/static/"):
            continue
        wrong = ("Authorization: Bearer wrong", "Authorization: Basic YTpi", "Authorization: Bearer")
        for key in ((), *([(each,) for each in wrong] if method in ("GET", "POST") else ())):
            side.web._site.application.state.tries._left.clear()
            code, body = await raw(side.port, method, quote(path, "/%;.?="), *key)
            answers.add((code, b"" if method == "HEAD" else body))
    bodies = {body for _, body in answers if body}
    assert {code for code, _ in answers} <= {400, 401}, answers
    assert len({body for body in bodies if b"unauthorized" in body}) == 1
    assert await state(connection) == before


async def test_with_a_key_no_trick_leads_anywhere_and_nothing_is_a_fault(side, connection):
    bearer = f"Authorization: Bearer {READ}"
    codes = set()
    for path, method in product(TRICKS, ("GET", "POST", "DELETE", "BREW")):
        code, body = await raw(side.port, method, quote(path, "/%;.?="), bearer)
        codes.add(code)
        assert b"Traceback" not in body
    assert codes <= {303, 400, 404, 405, 403}, codes
    assert (await raw(side.port, "GET", "/api%2fv1%2fjobs", bearer))[0] == 200  # one way to write it, with the same key
    assert (await raw(side.port, "GET", "/api%2fv1%2fjobs"))[0] == 401
    for method in ("PUT", "PATCH", "DELETE", "TRACE", "BREW"):
        assert (await raw(side.port, method, "/api/v1/jobs", bearer))[0] == 405


async def test_get_changes_nothing(side, connection):
    job = await enqueue(connection)
    before = await state(connection)
    for path in ROUTES:
        if path != "/api/v1/events":
            await side.get(path.replace("/1", f"/{job}"))
    assert await state(connection) == before


async def refused(side, key):
    """The status for a key, past the socket: ten thousand connections are not what is tried."""
    said = []

    async def send(message):
        said.append(message.get("status"))

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"host", b"localhost")]
    scope = {"type": "http", "method": "GET", "path": "/api/v1/types", "headers": headers, "client": ("127.0.0.1", 1)}
    await side.web._site(scope, None, send)
    return said[0]


async def test_ten_thousand_wrong_keys_lock_out_nobody_who_is_right(side):
    assert (await side.get("/api/v1/types", READ)).status_code == 200
    wrong = [await refused(side, f"wrong-{n}") for n in range(10_000)]
    assert set(wrong) == {401, 429}
    assert wrong.count(429) > 9_000
    assert (await side.get("/api/v1/types", "wrong")).status_code == 429
    assert (await side.get("/api/v1/types", READ)).status_code == 200
    first = await side.get("/api/v1/types", ALL)
    assert (first.status_code, first.json()["code"], int(first.headers["retry-after"])) == (429, "too_many_tries", 60)
    side.web._site.application.state.tries._clock = lambda: 1e9
    assert (await side.get("/api/v1/types", ALL)).status_code == 200


async def logged_in(side, key=ALL, **headers):
    answer = await side.client.post(
        "/admin/login", data={"key": key}, headers={"Origin": f"http://127.0.0.1:{side.port}", **headers}
    )
    side.client.cookies.clear()
    return answer, answer.headers.get("set-cookie", "").partition(";")[0]


async def test_a_login_begins_a_session_that_scripts_cannot_read(side):
    answer, cookie = await logged_in(side)
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin")
    told = answer.headers["set-cookie"]
    assert all(word in told for word in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="))
    assert ALL not in told
    assert (await side.get("/api/v1/types", None, Cookie=cookie)).status_code == 200
    tls, _ = await logged_in(side, **{"X-Forwarded-Proto": "https"})
    assert tls.headers["set-cookie"].startswith("__Host-worker=")
    assert "Secure" in tls.headers["set-cookie"]
    assert "max-age" in tls.headers["strict-transport-security"]


async def test_a_bent_cookie_is_none(side):
    _, cookie = await logged_in(side)
    for value in ("x", "a.b", "", "€", "YQ==.b", cookie.partition("=")[2][:-1], cookie.partition("=")[2] + "0"):
        sent = {"Cookie": f"worker_session={value}".encode()}
        assert (await side.get("/api/v1/types", None, **sent)).status_code == 401


async def test_a_login_leads_to_no_other_site(side):
    for next in ["https://evil.test", "//evil.test", "/admin//evil.test", "/adminx", "/admin\\x", ""]:
        answer = await side.client.post("/admin/login", data={"key": ALL, "next": next})
        assert (answer.status_code, answer.headers["location"]) == (303, "/admin"), next


async def test_a_wrong_key_begins_nothing(side):
    answer, cookie = await logged_in(side, "wrong")
    assert (answer.status_code, cookie) == (303, "")
    assert answer.headers["location"].startswith("/admin/login?wrong=1")
    for _ in range(30):
        answer, cookie = await logged_in(side, "wrong")
    assert answer.headers["location"].startswith("/admin/login?later=1")


async def test_a_session_acts_with_origin_and_token_only(side, connection):
    _, cookie = await logged_in(side)
    own = {"Cookie": cookie, "Origin": f"http://127.0.0.1:{side.port}"}
    token = side.web._site.application.state.sessions.visitor(cookie.partition("=")[2]).csrf
    before = await state(connection)
    for headers in (
        {"Cookie": cookie},
        own,
        own | {"X-CSRF-Token": "0" * 64},
        own | {"X-CSRF-Token": "é".encode()},
        own | {"X-CSRF-Token": token, "Origin": "https://evil.test"},
        own | {"X-CSRF-Token": token, "Origin": "null"},
        own | {"X-CSRF-Token": token, "Sec-Fetch-Site": "cross-site"},
        own | {"X-CSRF-Token": token, "Sec-Fetch-Site": "same-site"},
        {"Cookie": cookie, "X-CSRF-Token": token},
    ):
        for path in ("/api/v1/types/work/pause", "/api/v1/jobs/bulk/cancel", "/api/v1/jobs"):
            answer = await side.ask("POST", path, None, json={"job_type": "work"}, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_site"), headers
    assert await state(connection) == before
    answer = await side.ask(
        "POST", "/api/v1/jobs", None, json={"job_type": "work"}, headers=own | {"X-CSRF-Token": token}
    )
    assert answer.status_code == 201


async def test_a_strangers_name_for_us_opens_nothing(side):
    _, cookie = await logged_in(side)
    for host in ("evil.test", f"evil.test:{side.port}", "127.0.0.1.evil.test", "", "localhost@evil.test"):
        answer = await side.get("/api/v1/types", None, Cookie=cookie, Host=host)
        assert answer.status_code in (400, 421), host
    assert (await side.get("/api/v1/types", None, Cookie=cookie, Host="localhost:1")).status_code == 200
    assert (await side.get("/api/v1/types", READ, Host="service.cluster.local")).status_code == 200


async def test_no_page_of_another_site_frames_or_reads_us(side):
    for path, key in (("/api/v1/types", ALL), ("/api/v1/types", None), ("/api/v1/none", ALL), ("/admin/login", None)):
        headers = (await side.get(path, key)).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        assert headers["cache-control"] == "no-store"


async def test_a_key_that_is_replaced_ends_its_sessions(tmp_path, dsn, side):
    _, cookie = await logged_in(side)
    async with standing(site_config(tmp_path, dsn, KEYS.replace('"admin"', '"boss"'))) as other:
        assert (await other.get("/api/v1/types", None, Cookie=cookie)).status_code == 401
