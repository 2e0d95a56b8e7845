"""Every action of the pages: a preview or a question first, then it is done, and an event says by whom."""

from typing import Any

import asyncpg
import pytest

from tests.browser.sight import Sight, confirm, live
from tests.heart import until

EVENT = "select actor from worker.job_event where event = $1 order by id desc limit 1"
ACTOR = "web:loopback"


@pytest.mark.parametrize(
    ("job", "deed", "button", "said", "status"),
    [
        (311, "Retry…", "Retry", "It is pending again", "pending"),
        (364, "Cancel…", "Cancel the job", "Cancelled.", "cancelled"),
        (361, "Cancel…", "Cancel the job", "It was asked to end", "running"),
    ],
)
async def test_one_job(  # noqa: PLR0917, a table's columns
    sight: Sight, painted: asyncpg.Connection, job: int, deed: str, button: str, said: str, status: str
) -> None:
    page = await sight.page(f"/admin/jobs/{job}")
    await confirm(page, deed, button)
    await page.get_by_text(said).first.wait_for()
    assert await painted.fetchval("select status from worker.job_queue where id = $1", job) == status
    assert await painted.fetchval(EVENT, deed.strip("…").lower()) == ACTOR
    await page.locator("#events-title + *").get_by_text(ACTOR).first.wait_for()


async def test_all_steps_again(sight: Sight, painted: asyncpg.Connection) -> None:
    await painted.execute("update worker.job_queue set status = 'failed', trouble = true where id = 350")
    page = await sight.page("/admin/jobs/350")
    await confirm(page, "From the start…", "Retry all steps")
    await page.get_by_text("It is pending again").wait_for()
    assert await painted.fetchval("select count(*) from worker.job_step where job_id = 350") == 0


async def test_types_are_paused_and_resumed(sight: Sight, painted: asyncpg.Connection) -> None:
    page = await sight.page("/admin/types")
    await confirm(page, "Pause…", "Pause", "#type-send_receipt")
    await page.get_by_text("Paused: no more claims").wait_for()
    assert await painted.fetchval("select paused from worker.job_type where name = 'send_receipt'")
    assert await painted.fetchval(EVENT, "pause") == ACTOR
    await confirm(page, "Resume…", "Resume", "#type-send_receipt")
    await page.get_by_text("Resumed.").wait_for()
    assert not await painted.fetchval("select paused from worker.job_type where name = 'send_receipt'")


async def test_schedules_run_pause_and_resume(sight: Sight, painted: asyncpg.Connection) -> None:
    page = await sight.page("/admin/schedules")
    before = await painted.fetchval("select count(*) from worker.job_queue")
    await confirm(page, "Run now…", "Run now", "#schedule-hourly_orders")
    await page.get_by_text("Its jobs are enqueued.").wait_for()
    assert await painted.fetchval("select count(*) from worker.job_queue") == before + 1
    await confirm(page, "Pause…", "Pause", "#schedule-hourly_orders")
    await page.locator("#schedule-hourly_orders .switch.paused").wait_for()
    await confirm(page, "Resume…", "Resume", "#schedule-hourly_orders")
    await page.locator("#schedule-hourly_orders .switch.on").wait_for()
    assert await painted.fetchval(EVENT, "run") == ACTOR


async def test_chosen_jobs_are_shown_first_and_then_retried(sight: Sight, painted: asyncpg.Connection) -> None:
    page = await sight.page("/admin/jobs?status=failed&type=send_receipt")
    await page.get_by_label("Choose all on this page").check()
    await page.get_by_text("With the 6 chosen:").wait_for()
    await page.get_by_label("Choose job 316").uncheck()
    await page.get_by_role("button", name="Retry…").click()
    await page.get_by_role("heading", name="Retry 5 jobs").wait_for()
    assert await failed(painted) == 7
    await page.get_by_role("button", name="Retry 5 jobs").click()
    await page.get_by_text("5 done, 0 left alone.").wait_for()
    assert await failed(painted) == 2


async def test_all_that_match_are_cancelled(sight: Sight, painted: asyncpg.Connection) -> None:
    page = await sight.page("/admin/jobs?status=pending&type=resize_image")
    await page.get_by_role("link", name="Cancel all that are pending and match…").click()
    await page.get_by_role("heading", name="Cancel 14 jobs").wait_for()
    await page.get_by_label("Reason").fill("wrong images")
    await page.get_by_role("button", name="Cancel 14 jobs").click()
    await page.get_by_text("14 done").wait_for()
    cancelled = "select count(*) from worker.job_queue where job_type = 'resize_image' and status = 'cancelled'"
    assert await painted.fetchval(f"{cancelled} and id > 363") == 14


async def test_the_button_of_the_statistics_and_its_states(sight: Sight, painted: asyncpg.Connection) -> None:
    page = await sight.page("/admin")
    await live(page)
    await page.get_by_label("Tenant").fill("5b8f9a10-0000-4000-8000-000000000001")
    await page.get_by_role("button", name="Update statistics").click()
    await page.get_by_text("Enqueued.").wait_for()
    job = await painted.fetchval("select max(id) from worker.job_queue where job_type = 'stats_update'")
    assert await painted.fetchval("select source from worker.job_queue where id = $1", job) == "admin"
    await state(page, "queued")
    me = "status = 'running', queued = false, claimed_by = 1, batch = 2, claim = 900, started_at = now()"
    await painted.execute(f"update worker.job_queue set {me} where id = $1", job)
    await state(page, "processing")
    over = "status = 'completed', finished_at = now()"
    await painted.execute(f"update worker.job_queue set {over} where id = $1", job)
    await state(page, "completed")
    await painted.execute(f"update worker.job_queue set {me}, finished_at = null where id = $1", job)
    await state(page, "processing")
    over = "finished_at = now(), status = 'failed', trouble = true, finish_reason = 'exhausted'"
    await painted.execute(f"update worker.job_queue set {over} where id = $1", job)
    await state(page, "failed")
    await page.get_by_text("The last ten").click()
    ten = page.locator("details.last tbody tr")
    assert await ten.filter(has_text=str(job)).filter(has_text="failed").count() == 1
    assert await ten.count() <= 10
    await confirm(page, "For all clubs…", "Update all")
    await page.get_by_text("A daemon reads its rows").wait_for()
    await until(painted, "select asked_at is not null from worker.schedule where name = 'nightly_stats'")


async def state(page: Any, word: str) -> None:
    await page.locator(".way [aria-current]", has_text=word).wait_for()


async def failed(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("select count(*) from worker.job_queue where status = 'failed'")
    return found
