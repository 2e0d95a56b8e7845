"""The command: for each queue raw SQL, ours and the queue one after the other, measure by measure."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version

import asyncpg

from bench.ground import Ground, ground
from bench.peers import measures, page
from bench.peers.adapter import Adapter, TooSlowError
from bench.peers.catalogue import catalogue, peers
from bench.peers.figure import OURS, RAW, PeerFigure, Run, figures
from bench.peers.install import Installed, MissingError, installed
from bench.progress import say

Measure = Callable[[Adapter, Ground], Awaitable[dict[str, float]]]
MEASURES: Sequence[Measure] = (measures.drain, measures.pickup, measures.sustained)


def main(names: Sequence[str], runs: int, scale: float, *, as_json: bool, write: bool, note: str) -> int:
    """Measure the queues that are named, or all; those that cannot be had are said, and left out."""
    if unknown := set(names) - set(peers()):
        say(f"unknown: {', '.join(sorted(unknown))}; there are: {' '.join(peers())}")
        return 2
    found, missing = _installed(names or list(peers()))
    with ground(scale) as here:
        told = asyncio.run(_measured(here, found, runs))
    say("\n" + "\n".join(page.tables([each.as_dict() for each in told])))
    if write:
        page.write(told, missing, scale, note)
    if as_json:
        print(json.dumps([each.as_dict() for each in told], ensure_ascii=False))
    return 0


def _installed(names: Sequence[str]) -> tuple[dict[str, Installed], dict[str, str]]:
    """Those that can be had, and why the others cannot."""
    found, missing = {}, {}
    for name in names:
        began = time.monotonic()
        try:
            found[name] = installed(catalogue()[name])
        except MissingError as error:
            missing[name] = str(error)
            say(f"{name} is left out: {error}")
        else:
            say(f"{name} {found[name].version} is installed ({time.monotonic() - began:.0f} s)")
    return found, missing


async def _measured(ground: Ground, found: Mapping[str, Installed], runs: int) -> list[PeerFigure]:
    entries = catalogue()
    own = {name: Adapter(entries[name], installed(entries[name]), ground) for name in (RAW, OURS)}
    others = {name: Adapter(entries[name], how, ground) for name, how in found.items()}
    told = {name: [await _beside(ground, {**own, name: each}) for _ in range(runs)] for name, each in others.items()}
    recovered = await _recovered({OURS: own[OURS], **others}, ground)
    all_of_them = [run for each in told.values() for run in each]
    groups = {OURS: [*all_of_them, recovered], **{name: [*each, recovered] for name, each in told.items()}}
    versions = {OURS: version("job-queue-worker"), **{name: how.version for name, how in found.items()}}
    return [
        each for name, group in groups.items() for each in figures(name, entries[name].settings, versions[name], group)
    ]


async def _beside(ground: Ground, adapters: Mapping[str, Adapter]) -> dict[str, Run]:
    """One run: each measure of all of them, one right after the other."""
    run = {name: Run() for name in adapters}
    for measure in MEASURES:
        for name, adapter in adapters.items():
            await _taken(run[name], measure, adapter, ground)
    return run


async def _recovered(adapters: Mapping[str, Adapter], ground: Ground) -> dict[str, Run]:
    """All at once, because nearly all of them only wait."""
    run = {name: Run() for name in adapters}
    await asyncio.gather(*(_taken(run[name], measures.recovery, each, ground) for name, each in adapters.items()))
    return run


async def _taken(run: Run, measure: Measure, adapter: Adapter, ground: Ground) -> None:
    began, name = time.monotonic(), f"{adapter.entry.name}, {measure.__name__}"
    try:
        run.values |= await measure(adapter, ground)
    except (TooSlowError, OSError, asyncpg.PostgresError) as error:  # one that fails does not end the others' run
        run.notes.append(f"{measure.__name__}: {error}")
        name += f": {error}"
    say(f"  {name}: {time.monotonic() - began:.1f} s")
