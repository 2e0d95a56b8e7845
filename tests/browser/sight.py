"""What a person sees and does in a browser, and what the browser complains of meanwhile."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

TimedOut = pytest.importorskip("playwright.async_api", reason="requirements-browser.lock").TimeoutError

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PATIENCE = 45_000  # milliseconds; never a timing that is asserted
WATCH = """
window.complaints = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.complaints.push(event.violatedDirective + " " + event.blockedURI + " " + event.sample));
"""


class Sight:
    """Pages of one web side; every one of them is watched for scripts that fail or run, and for the policy's reports.

    Attributes:
        complaints: of all pages so far.
    """

    def __init__(self, browser: Any, base: str, pictures: str | None) -> None:
        self._browser = browser
        self._contexts: list[Any] = []
        self.base = base
        self.pictures = Path(pictures) if pictures else None
        self.complaints: list[str] = []

    async def page(
        self,
        path: str = "/admin",
        *,
        dark: bool = False,
        width: int = 1280,
        script: bool = True,
        before: Callable[[Any], Awaitable[None]] | None = None,
    ) -> Any:
        """A new page in a browser that knows nothing yet; `before` is done with it before it is asked for."""
        context = await self._browser.new_context(
            base_url=self.base,
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": 800},
            java_script_enabled=script,
        )
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE)
        await context.add_init_script(WATCH)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("console", self._heard)
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        if before is not None:
            await before(page)
        await page.goto(path)
        return page

    def _heard(self, said: Any) -> None:
        if said.type == "error" and "status of 4" not in said.text:
            self.complaints.append(f"console: {said.text}")

    async def reports(self, page: Any) -> list[str]:
        """What the content policy reported on this page."""
        found: list[str] = await page.evaluate("window.complaints")
        return found

    async def picture(self, page: Any, name: str) -> None:
        """Keep what is seen, where WORKER_TEST_SCREENSHOTS names a folder."""
        if self.pictures:
            self.pictures.mkdir(parents=True, exist_ok=True)
            await page.screenshot(path=self.pictures / f"{name}.png", full_page=True)

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()


async def live(page: Any) -> None:
    """Wait until the stream of changes is there."""
    await page.wait_for_selector('#live-state[data-state="live"]')


async def confirm(page: Any, deed: str, button: str, within: str = "main") -> None:
    """Open a deed, and say yes."""
    place = page.locator(within)
    await place.locator("summary", has_text=deed).first.click()
    await place.get_by_role("button", name=button, exact=True).click()
