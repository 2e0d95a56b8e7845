"""The text of a scrape is made once a second, however many ask."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Gauge

from worker.web import exposition as module
from worker.web.exposition import Exposition

OPEN = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def read(registry: CollectorRegistry) -> list[float]:
    """Grows each time that the registry is read."""
    times: list[float] = []
    Gauge("times", "How often.", registry=registry).set_function(lambda: times.append(1) or float(len(times)))
    return times


async def test_a_crowd_reads_one_text(registry, read):
    exposition = Exposition(registry)
    texts = await asyncio.gather(*(exposition.text("") for _ in range(50)))
    assert len(read) == len(set(texts)) == 1
    assert b"times 1.0" in texts[0][0]


async def test_it_is_made_anew_when_it_is_old(registry, read, monkeypatch):
    monkeypatch.setattr(module, "FRESH_SECONDS", -1.0)
    exposition = Exposition(registry)
    assert b"times 1.0" in (await exposition.text(""))[0]
    assert b"times 2.0" in (await exposition.text(""))[0]


async def test_each_format_has_its_own_and_strange_ones_are_not_kept(registry, read, monkeypatch):
    monkeypatch.setattr(module, "FORMATS", 1)
    exposition = Exposition(registry)
    for _ in range(2):
        body, content = await exposition.text("")
        assert (content.startswith("text/plain"), b"# EOF" in body) == (True, False)
        body, content = await exposition.text(OPEN)
        assert (content.startswith("application/openmetrics-text"), b"# EOF" in body) == (True, True)
    assert len(read) == 3


async def test_who_goes_away_does_not_take_it_along(registry, read):
    exposition = Exposition(registry)
    gone = asyncio.create_task(exposition.text(""))
    await asyncio.sleep(0)
    gone.cancel()
    assert b"times 1.0" in (await exposition.text(""))[0]
    assert len(read) == 1
