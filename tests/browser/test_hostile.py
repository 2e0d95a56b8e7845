"""A corpus in every field that a tenant or an exception can fill: nothing of it runs, the policy has nothing to say."""

import asyncpg

from tests.browser.corpus import PARTS
from tests.browser.sight import Sight, live
from tests.web.hostile import spoil

PAGES = ("/admin", "/admin/jobs", "/admin/jobs?status=failed", "/admin/types", "/admin/schedules")


async def test_nothing_of_the_corpus_runs(sight: Sight, painted: asyncpg.Connection) -> None:
    jobs = await spoil(painted)
    page = await sight.page()
    paths = [*PAGES, *(f"/admin/jobs/{job}?show=payload" for job in jobs), f"/admin/jobs/many?act=retry&id={jobs[0]}"]
    for path in paths:
        await page.goto(path)
        if "many" not in path:
            await live(page)
        assert await sight.reports(page) == [], path
        assert (
            await page.locator("iframe, main script, main style, main img, main [onerror], main svg[onload]").count()
            == 0
        )
    for part in PARTS[:3]:
        await page.goto("/admin/jobs")
        await page.get_by_role("searchbox").fill(part)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**search=*")
        assert await page.get_by_role("searchbox").input_value() == part
        assert await sight.reports(page) == []
    assert sight.complaints == []


async def test_news_with_the_corpus_run_nothing_either(sight: Sight, painted: asyncpg.Connection) -> None:
    page = await sight.page("/admin/jobs")
    await live(page)
    jobs = await spoil(painted)
    await painted.execute("select worker.enqueue('sync_orders')")
    await page.locator(f"#job-{jobs[0]}").wait_for()
    assert await sight.reports(page) == []
    assert sight.complaints == []
