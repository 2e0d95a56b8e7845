"""Somebody who never saw the page answers four questions by what stands there, and by following its links."""

import asyncpg

from tests.browser.sight import Sight


async def test_which_step_was_slow(sight: Sight) -> None:
    page = await sight.page("/admin")
    await page.get_by_role("row", name="stats_update").get_by_role("link", name="stats_update").click()
    slow = page.locator(".jobs tbody tr", has_text="14.9 s")
    await slow.get_by_role("link").first.click()
    story = await page.get_by_text("slowest: ").inner_text()
    assert "slowest: match_report, 3.1 s" in story
    await page.get_by_text("As a table").click()
    slowest = await page.get_by_role("row", name="match_report completed").inner_text()
    assert "7.4 × its usual 420 ms" in slowest


async def test_why_is_this_job_not_running(sight: Sight) -> None:
    page = await sight.page("/admin")
    await page.get_by_text("resize_image is paused; 14 jobs due.").wait_for()
    await page.get_by_role("row", name="resize_image").get_by_role("link", name="14").click()
    await page.locator(".jobs tbody th a").first.click()
    said = await page.locator(".explained").inner_text()
    assert "paused" in said


async def test_what_failed_last_night_and_how_to_run_it_again(sight: Sight, painted: asyncpg.Connection) -> None:
    page = await sight.page("/admin")
    failures = page.get_by_role("region", name="Latest failures")
    await failures.get_by_text("ConnectTimeout: mail.example.org:443 did not answer in 5 s").wait_for()
    await failures.get_by_role("link", name="and 5 more").click()
    await page.get_by_role("link", name="Retry all that are failed and match…").click()
    await page.get_by_role("button", name="Retry 6 jobs").click()
    await page.get_by_text("6 done, 0 left alone.").wait_for()
    again = "select count(*) from worker.job_queue where status = 'pending' and id between 311 and 316"
    assert await painted.fetchval(again) == 6
