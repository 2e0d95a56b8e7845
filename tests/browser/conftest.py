"""A headless Chromium before the real web side over a real database; without a browser these tests say so and skip."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.browser.sight import FLAGS, Sight
from tests.browser.world import TOML
from tests.heart import configured
from tests.web.painted import paint
from tests.web.site import KEYS, standing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytest.importorskip("playwright.async_api", reason="playwright is not installed: requirements-browser.lock has it")


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Any]:
    """The browser of this test process."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def painted(connection: asyncpg.Connection, dsn: str, tmp_path: Path) -> asyncpg.Connection:
    """A connection to a database with an ordinary evening in it."""
    await paint(connection, configured(tmp_path, dsn, TOML))
    return connection


@pytest.fixture
async def sight(
    chromium: Any, painted: asyncpg.Connection, dsn: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Sight]:
    """The pages, open to whoever is on this machine; `@pytest.mark.parametrize("sight", ["keys"], indirect=True)` has
    them ask for a key."""
    http = KEYS if getattr(request, "param", "") == "keys" else ""
    config = configured(tmp_path, dsn, f'[http]\nlisten = "127.0.0.1:0"\n{http}\n{TOML}')
    async with standing(config) as site:
        seen = Sight(chromium, f"http://127.0.0.1:{site.port}", os.environ.get("WORKER_TEST_SCREENSHOTS"))
        yield seen
        await seen.close()
