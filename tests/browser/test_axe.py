"""axe-core finds no serious fault on any page; nightly, because the package is fetched for it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.sight import Sight
from tests.browser.test_reading import PAGES

pytestmark = pytest.mark.skipif(not os.environ.get("WORKER_TEST_NIGHTLY"), reason="nightly: WORKER_TEST_NIGHTLY=1")
AXE = "axe-core@4.14.1"
OPEN = "document.querySelectorAll('details.last').forEach((each) => { each.open = true; })"
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, as its package has it."""
    folder = tmp_path_factory.mktemp("axe")
    if not shutil.which("npm"):
        pytest.skip("no npm on this machine, and axe-core is one of its packages")
    got = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, timeout=60, check=False)
    if got.returncode:
        pytest.skip(f"npm does not bring {AXE}")
    subprocess.run(["tar", "xzf", next(folder.glob("*.tgz")).name], cwd=folder, check=True, timeout=60)
    return Path(folder, "package", "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1280), (False, 390)], ids=["light", "dark", "phone"])
async def test_no_serious_fault(sight: Sight, axe: str, dark: bool, width: int) -> None:
    page = await sight.page("/admin", dark=dark, width=width)
    told = []
    for name, (path, _) in {**PAGES, "login": ("/admin/login", "")}.items():
        await page.goto(path)
        await page.evaluate(OPEN)
        await page.evaluate(axe)
        for each in (await page.evaluate("axe.run()"))["violations"]:
            if each["impact"] in GRAVE:
                told += [f"{name}: {each['id']}: {node['target']} {node['failureSummary']}" for node in each["nodes"]]
    assert told == [], "\n".join(told)
