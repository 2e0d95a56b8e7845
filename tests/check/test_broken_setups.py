"""Each broken set-up is named, with a cure; and when that was done, nothing is found any more."""

import asyncio
import time

import pytest

from tests.bouncer import find
from tests.check.cases import DECLARED, FUNCTIONS, RIGHTS, SCHEMA, SETTINGS, Act, Case
from tests.check.cases_around import AROUND
from tests.check.cases_file import FILE
from tests.check.ward import Ward, bad
from tests.heart import DEADLINE
from worker.check import Finding

CASES = [*SCHEMA, *RIGHTS, *SETTINGS, *FUNCTIONS, *DECLARED, *FILE, *AROUND]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_a_broken_setup(ward: Ward, case: Case) -> None:
    if "pooler" in case.id and find() is None:
        pytest.skip("pgbouncer is not installed")
    ward.afterwards += case.afterwards
    await applied(ward, case.broken)
    found = bad(await ward.look())
    assert {each.code for each in found} == {case.code, *case.also}, found
    assert [each for each in found if not each.cure] == []
    if case.mended is not None:
        await applied(ward, case.mended)
    else:
        for each in found:
            if each.code == case.code:
                await ward.apply(str(each.cure))
    assert await silent(ward) == []


async def applied(ward: Ward, given: str | tuple[str, ...] | Act) -> None:
    if callable(given):
        await given(ward)
        return
    for statement in (given,) if isinstance(given, str) else given:
        await ward.execute(statement.replace("{database}", ward.name))


async def silent(ward: Ward) -> list[Finding]:
    """What is still found; what a whole server is told reaches it a moment later."""
    end = time.monotonic() + (DEADLINE if ward.patient else 0)
    while (found := bad(await ward.look())) and time.monotonic() < end:  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.02)
    return found


async def test_a_healthy_one(ward: Ward) -> None:
    assert bad(await ward.look()) == []


def test_there_are_enough() -> None:
    assert len({case.code for case in CASES}) >= 60
