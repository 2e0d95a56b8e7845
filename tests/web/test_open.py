"""Loopback without keys: open to programs of this machine, not to what strangers' pages make its browsers do."""

from itertools import product

import pytest

from tests.web.site import site_config, standing, state


@pytest.fixture
async def open(tmp_path, dsn):
    async with standing(site_config(tmp_path, dsn, http="")) as found:
        yield found


async def test_a_program_needs_nothing(open):
    assert (await open.ask("POST", "/api/v1/jobs", None, json={"job_type": "work"})).status_code == 201


async def test_a_page_of_another_site_does_nothing(open, connection):
    before = await state(connection)
    sites = [
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ]
    for path, headers in product(("/api/v1/jobs", "/api/v1/types/work/pause", "/api/v1/jobs/bulk/cancel"), sites):
        answer = await open.ask("POST", path, None, json={"job_type": "work"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    assert await state(connection) == before


async def test_its_own_page_needs_its_token(open):
    own = {"Origin": f"http://127.0.0.1:{open.port}", "Sec-Fetch-Site": "same-origin"}
    body = {"job_type": "work"}
    assert (await open.ask("POST", "/api/v1/jobs", None, json=body, headers=own)).status_code == 403
    token = open.web._site.application.state.sessions.guest().csrf
    own["X-CSRF-Token"] = token
    assert (await open.ask("POST", "/api/v1/jobs", None, json=body, headers=own)).status_code == 201


async def test_a_strangers_name_for_us_opens_nothing(open):
    for path in ("/api/v1/types", "/admin", "/openapi.json", "/api/v1/none"):
        assert (await open.get(path, None, Host="evil.test")).status_code == 421


async def test_behind_a_proxy_it_is_not_open(open):
    assert (await open.get("/api/v1/types", None, **{"X-Forwarded-For": "203.0.113.7"})).status_code == 401
