"""Question 1b: B2 changed in one thing at a time: where the bounds are tested, which lists have an index."""

from __future__ import annotations

from typing import Any

from bench.spike import harness, tables

VARIANTS = ("b2", "b2_checks", "b2_cross", "b2_plain", "b2_notype", "b2_notenant", "b2_nolist")


async def measure(jobs: int = 20_000, rounds: int = 5) -> dict[str, Any]:
    for variant in VARIANTS:
        await harness.create(variant)
    runs = await tables.drains(VARIANTS, jobs, rounds, empty=True)
    for variant in VARIANTS:
        await harness.drop(variant)
    return runs


def report(result: dict[str, Any]) -> str:
    return tables.drained(result)
