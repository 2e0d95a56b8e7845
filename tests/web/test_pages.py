"""Every page over a real database: what it says, what it hides, and that nothing of a job is ever markup."""

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import asyncpg
import pytest

from tests.browser.corpus import HOSTILE
from tests.browser.world import TOML
from tests.heart import configured
from tests.web.hostile import forget, spoil
from tests.web.painted import paint
from tests.web.site import KEYS, READ, Standing, standing
from worker import log

PAGES = (
    "/admin", "/admin?hours=24", "/admin/jobs", "/admin/jobs?status=failed&since=12h", "/admin/types",
    "/admin/schedules",
)  # fmt: skip
HTML = {"Accept": "text/html"}
PLAIN = "# harmless words"  # which sort as the corpus does


@pytest.fixture
async def site(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> AsyncIterator[Standing]:
    config = configured(tmp_path, dsn, f'[http]\nlisten = "127.0.0.1:0"\n{KEYS}\n{TOML}')
    await paint(connection, config)
    async with standing(config) as stood:
        yield stood


class Skeleton(HTMLParser):
    """The tags of a page with the names of their attributes, and its texts; comments and the like count as tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("line", "text"):  # of charts: as many as time has passed
            self.tags.append((tag, *(name for name, _ in attrs)))
        self.texts += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment",))

    def unknown_decl(self, data: str) -> None:
        self.tags.append(("declaration",))


async def skeletons(site: Standing, jobs: list[int]) -> dict[str, Skeleton]:
    paths = {path: path for path in PAGES}
    paths |= {f"job {n}": f"/admin/jobs/{job}?show=payload" for n, job in enumerate(jobs)}
    paths |= {"many": f"/admin/jobs/many?act=retry&id={jobs[0]}", "none": "/admin/jobs/999999999999"}
    made = {}
    for name, path in paths.items():
        answer = await site.get(path, **HTML)
        assert answer.status_code == (404 if name == "none" else 200), (path, answer.text)
        made[name] = Skeleton(answer.text)
    return made


async def test_not_one_byte_of_the_corpus_becomes_markup(site: Standing, connection: asyncpg.Connection) -> None:
    jobs = await spoil(connection, PLAIN)
    plain = await skeletons(site, jobs)
    await forget(connection, jobs)
    jobs = await spoil(connection)
    hostile = await skeletons(site, jobs)
    assert {name: each.tags for name, each in hostile.items()} == {name: each.tags for name, each in plain.items()}
    shown = "\n".join(text for each in hostile.values() for text in each.texts)
    assert shown.count(HOSTILE[:80]) > 10  # it was there to be read all the same


@pytest.mark.parametrize("name", ["search", "type", "tenant", "status", "since", "before", "said"])
async def test_nor_of_an_address(site: Standing, name: str) -> None:
    usual = set(Skeleton((await site.get("/admin/jobs", **HTML)).text).tags) | {("a", "href"), ("a", "rel", "href")}
    for text in (HOSTILE, "\0", "9" * 40, "-1", "1e9", "%", "²"):
        answer = await site.ask("GET", "/admin/jobs", params={name: text, "type": "none"}, headers=HTML)
        assert answer.status_code == 200
        assert {tag[0] for tag in Skeleton(answer.text).tags} <= {tag[0] for tag in usual}
        assert not [
            attribute for tag in Skeleton(answer.text).tags for attribute in tag[1:] if attribute.startswith("on")
        ]


async def test_what_was_counted_is_drawn_in_its_span(site: Standing) -> None:
    page = (await site.get("/admin", **HTML)).text
    assert re.search(r"<title>wait p50 .+ lately; at most .+</title>", page)
    assert re.search(r"<title>\d\d:\d\d UTC: \d+ completed", page)


async def test_the_overview_tells_what_is_wrong_and_how_much_there_is(site: Standing) -> None:
    said = " ".join(" ".join(Skeleton((await site.get("/admin", **HTML)).text).texts).split())
    for words in (
        "resize_image is paused; 14 jobs due.", "Nobody declared old_import; 2 jobs due", "1 job of sync_orders failed",
        "of 40", "ConnectTimeout: mail.example.org:443", "and 5 more", "app-2",
    ):  # fmt: skip
        assert words in said, said


@pytest.mark.parametrize(
    ("query", "jobs"),
    [
        ("status=failed", [362, 316, 315, 314, 313, 312, 311]),
        ("status=failed&since=1h", [362]),
        ("status=running", [361, 360]),
        ("type=send_receipt&status=pending", [384, 363]),
        ("search=357f", []),
        ("search=350", [350]),
        ("search=hunter2", []),  # of a payload
        ("search=LOCK timeout", [350]),
        ("tenant=club-2&status=running", [361]),
        ("before=3", [2, 1]),
    ],
)
async def test_jobs_are_found(site: Standing, query: str, jobs: list[int]) -> None:
    page = (await site.get(f"/admin/jobs?{query}", **HTML)).text
    found = [int(each) for each in re.findall(r'<tr id="job-(\d+)"', page)]
    assert [each for each in found if each in jobs or each > 300] == jobs or found == jobs


async def test_all_that_match_can_be_meant_where_a_filter_says_which(site: Standing) -> None:
    for query, offered in (
        ("status=failed", True),
        ("type=sync_orders", False),
        ("status=failed&search=Connect", False),
    ):
        assert ("and match…" in (await site.get(f"/admin/jobs?{query}", **HTML)).text) is offered
    for query in (
        "act=retry",
        "act=eat&id=1",
        "act=retry&id=x",
        "act=retry&" + "&".join(f"id={n}" for n in range(1001)),
    ):
        assert (await site.get(f"/admin/jobs/many?{query}", **HTML)).status_code == 422
    told = (await site.get("/admin/jobs/many?act=retry&all=1&status=failed&type=send_receipt", **HTML)).text
    assert "Retry 6 jobs" in told


async def test_pages_of_the_list_follow_one_another(site: Standing) -> None:
    path, seen = "/admin/jobs?type=sync_orders", []
    while path:
        page = (await site.get(path, **HTML)).text
        seen += [int(each) for each in re.findall(r'<tr id="job-(\d+)"', page)]
        older = re.search(r'rel="next" href="([^"]+)"', page)
        path = older[1].replace("&amp;", "&") if older else ""
    assert len(seen) == len(set(seen)) == 77
    assert seen == sorted(seen, reverse=True)


async def test_a_payload_is_hidden_until_asked_and_its_secrets_then_too(site: Standing) -> None:
    hidden = (await site.get("/admin/jobs/362", **HTML)).text
    shown = (await site.get("/admin/jobs/362?show=payload", **HTML)).text
    assert "password" not in hidden.split('id="payload-title"')[1].split("</section>")[0]
    assert "&#34;password&#34;: &#34;***&#34;" in shown
    assert "hunter2" not in hidden + shown


async def test_a_secret_of_the_configuration_is_starred_under_any_name(
    site: Standing, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_secrets", set())
    monkeypatch.setattr(log, "_any_secret", None)
    log.register_secrets(["canary-of-a-page"])
    spoilt = "update worker.job_queue set payload = $1::jsonb, progress = $1::jsonb where id = 362"
    await connection.execute(spoilt, '{"a": "before canary-of-a-page after"}')
    page = (await site.get("/admin/jobs/362?show=payload", **HTML)).text
    assert "canary-of-a-page" not in page
    assert page.count("before *** after") == 2


async def test_who_may_read_sees_no_deed_and_can_do_none(site: Standing) -> None:
    for path in (*PAGES, "/admin/jobs/311", "/admin/jobs/360"):
        page = (await site.get(path, READ, **HTML)).text
        assert '<form method="post"' not in page
        assert "With the chosen" not in page
    for path in ("/admin/jobs/311/retry", "/admin/types/resize_image/resume", "/admin/stats", "/admin/jobs/many"):
        assert (await site.post(path, key=READ)).status_code == 403
    assert (await site.get("/admin/jobs/many?act=retry&id=311", READ)).status_code == 403


async def test_a_look_changes_nothing(site: Standing, connection: asyncpg.Connection) -> None:
    before = await connection.fetchval(STATE)
    for path in (*PAGES, "/admin/jobs/311", "/admin/jobs/many?act=cancel&all=1&status=pending", "/admin/login"):
        assert (await site.get(path, **HTML)).status_code == 200
    for path in ("/admin/jobs/311/retry", "/admin/types/resize_image/resume", "/admin/schedules/nightly_stats/run"):
        assert (await site.get(path, **HTML)).status_code == 405
    assert await connection.fetchval(STATE) == before


STATE = """
    select md5(string_agg(concat(j.id, j.status, j.scheduled_at), ',' order by j.id))
      || (select count(*) from worker.job_event)
      || (select string_agg(t.paused::text, ',' order by t.name) from worker.job_type t)
    from worker.job_queue j
"""


async def test_files_are_there_for_whoever_logs_in_and_are_kept_by_browsers(site: Standing) -> None:
    page = (await site.get("/admin/login", None, **HTML)).text
    files = re.findall(r'(?:href|src)="(/admin/static/[^"]+)"', page)
    assert len(files) >= 5
    for path in files:
        answer = await site.get(path, None)
        assert answer.status_code == 200
        assert "no-store" not in answer.headers.get("cache-control", "")
    assert (await site.get("/admin/static/../templates/base.html", None)).status_code in (401, 404)
    assert "http" not in re.sub(r'xmlns="[^"]+"', "", page.split("<body")[0].replace("http-equiv", ""))
