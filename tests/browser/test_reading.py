"""Every page is there for every reader: both themes, a phone, a keyboard, no script, a key that may only read."""

import pytest

from tests.browser.sight import Sight, live
from tests.web.site import READ

PAGES = {
    "overview": ("/admin", "What is wrong now"),
    "jobs": ("/admin/jobs", "Newest first."),
    "failed": ("/admin/jobs?status=failed&since=12h", "ConnectTimeout"),
    "job": ("/admin/jobs/350", "kept from an earlier attempt"),
    "running": ("/admin/jobs/360", "4 of 10 steps done"),
    "payload": ("/admin/jobs/362?show=payload", "Permanent: 401"),
    "preview": ("/admin/jobs/many?act=retry&id=311&id=312&id=1", "nothing has been done yet"),
    "types": ("/admin/types", "Undeclared:"),
    "schedules": ("/admin/schedules", "nightly_stats"),
}


@pytest.mark.parametrize(
    ("look", "dark", "width"), [("light", False, 1280), ("dark", True, 1280), ("phone", False, 390)]
)
async def test_every_page_is_whole(sight: Sight, look: str, dark: bool, width: int) -> None:
    page = await sight.page("/admin", dark=dark, width=width)
    for name, (path, words) in PAGES.items():
        await page.goto(path)
        await page.get_by_text(words).first.wait_for()
        await live(page)
        beyond = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond == 0, f"{name} is wider than the window"
        assert await sight.reports(page) == []
        await sight.picture(page, f"{name}-{look}")
    assert sight.complaints == []


async def test_without_a_script_all_can_be_read_and_done(sight: Sight, painted) -> None:
    page = await sight.page("/admin", script=False)
    for path, words in PAGES.values():
        await page.goto(path)
        await page.get_by_text(words).first.wait_for()
    await page.goto("/admin/jobs/362")
    await page.locator("summary", has_text="Retry…").first.click()
    await page.get_by_role("button", name="Retry", exact=True).click()
    await page.get_by_text("It is pending again").wait_for()
    assert await painted.fetchval("select status from worker.job_queue where id = 362") == "pending"


async def test_by_keyboard_alone(sight: Sight, painted) -> None:
    page = await sight.page("/admin")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await reach(page, "See and retry")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/jobs?type=sync_orders*")
    await reach(page, "362")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/jobs/362")
    await reach(page, "Retry…")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Escape")
    assert not await page.locator(".deed[open]").count()
    await page.keyboard.press("Enter")
    await reach(page, "Retry")
    await page.keyboard.press("Enter")
    await page.get_by_text("It is pending again").wait_for()
    assert await painted.fetchval("select status from worker.job_queue where id = 362") == "pending"


async def reach(page, text: str) -> None:
    """Press Tab until what has the focus says this; everything that has it can be seen."""
    for _ in range(120):
        await page.keyboard.press("Tab")
        said, seen = await page.evaluate(
            "[document.activeElement.textContent.trim(), document.activeElement.getClientRects().length > 0]"
        )
        assert seen
        if said == text:
            return
    raise AssertionError(f"{text!r} cannot be reached")


async def test_parts_have_names_and_tables_say_what_their_cells_are(sight: Sight) -> None:
    page = await sight.page("/admin")
    for path, _ in PAGES.values():
        await page.goto(path)
        assert await page.locator("main").count() == 1
        assert await page.locator("h1").count() == 1
        assert await page.locator("th:not([scope])").count() == 0
        unnamed = await page.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden]), select')]"
            ".filter((each) => !each.labels.length && !each.ariaLabel).map((each) => each.name)"
        )
        assert unnamed == [], path
        assert await page.locator("svg[role=img]:not([aria-label])").count() == 0


@pytest.mark.parametrize("sight", ["keys"], indirect=True)
async def test_a_login_and_a_key_that_may_only_read(sight: Sight) -> None:
    page = await sight.page("/admin/jobs/362")
    await page.wait_for_url("**/admin/login*")
    await sight.picture(page, "login-light")
    await page.get_by_label("Key").fill("not-a-key")
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_text("That key is not known here.").wait_for()
    await page.get_by_label("Key").fill(READ)
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_text("(read only)").wait_for()
    for path, _ in PAGES.values():
        if "many" not in path:
            await page.goto(path)
            await live(page)
            assert await page.locator("main form[method=post]").count() == 0, path
    cookies = await page.context.cookies()
    assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Strict")]
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_url("**/admin/login*")
    await page.goto("/admin")
    await page.wait_for_url("**/admin/login*")
