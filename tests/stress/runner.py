"""Runs experiments: the loud ones one after the other, beside them the quiet ones on a second server.

In the fast tier, which runs with every change on machines that are slow at times, an experiment that saw too little or
too late runs once more, by itself. One whose checker found an invariant broken does not: that is wrong on any machine.
"""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager

from tests.stress.experiment import Experiment, Missing, Report
from tests.stress.place import Place, place
from tests.support import server_folder
from worker.embedded import Embedded, start

QUIET_AT_ONCE = 3
FAST_SLACK = 5.0  # a tier that runs with every change must fail for what is wrong, not for what is slow


class Runner:
    """One run of a tier; `say` is told of each report as it comes."""

    def __init__(self, tier: str, seed: int, say: Callable[[Report], None]) -> None:
        self._tier = tier
        self._seed = seed
        self._say = say
        self._ending = ExitStack()
        self._servers: dict[str, Embedded] = {}
        self._turn = asyncio.Semaphore(QUIET_AT_ONCE)

    async def run(self, experiments: Sequence[Experiment]) -> list[Report]:
        """All of them; reports in the order in which they were given."""
        loud = [each for each in experiments if not each.quiet]
        quiet = [each for each in experiments if each.quiet]
        with self._ending:
            self._folder = self._ending.enter_context(server_folder())
            self._folder.mkdir()
            reports = await asyncio.gather(self._one_by_one(loud), *(self._in_turn(each) for each in quiet))
            told = {report.id: report for report in [*reports[0], *reports[1:]]}
            for each in experiments:
                if self._tier == "fast" and may_repeat(told[each.id]):
                    told[each.id] = await self._again(each, told[each.id])
        return [told[each.id] for each in experiments]

    async def _again(self, experiment: Experiment, before: Report) -> Report:
        report = await self._conduct(experiment, "quiet" if experiment.quiet else "loud")
        report.first = before.faults or [f"{before.injected} of {before.planned} faults were injected"]
        return report

    async def _one_by_one(self, experiments: Sequence[Experiment]) -> list[Report]:
        return [await self._conduct(each, "loud") for each in experiments]

    async def _in_turn(self, experiment: Experiment) -> Report:
        async with self._turn:
            return await self._conduct(experiment, "quiet")

    async def _conduct(self, experiment: Experiment, lane: str) -> Report:
        slack = FAST_SLACK if self._tier == "fast" else 1.0
        report = Report(experiment.id, experiment.planned[self._tier], slack=slack)
        began = time.monotonic()
        try:
            async with self._place(experiment, lane) as here, asyncio.timeout(experiment.limit):
                await experiment.conduct(here, report)
        except Missing as missing:
            report.skipped = str(missing)
        except TimeoutError:
            report.faults.append(f"not over after {time.monotonic() - began:.0f} s: {_place(traceback.format_exc())}")
        except Exception as error:
            report.faults.append(f"{type(error).__name__}: {error} ({_place(traceback.format_exc())})")
        report.seconds = time.monotonic() - began
        self._say(report)
        return report

    @asynccontextmanager
    async def _place(self, experiment: Experiment, lane: str) -> AsyncIterator[Place]:
        with ExitStack() as ending:
            server = started(ending) if experiment.own_server else self._server(lane)
            async with place(server, self._folder, self._seed) as here:
                yield here

    def _server(self, lane: str) -> Embedded:
        if lane not in self._servers:
            self._servers[lane] = started(self._ending)
        return self._servers[lane]


def may_repeat(report: Report) -> bool:
    """Whether what it lacks may be the machine's fault."""
    return not report.ok and report.skipped is None and not report.violations


def started(ending: ExitStack) -> Embedded:
    """A server that is gone, with its folder, when `ending` is."""
    server = start(ending.enter_context(server_folder()), die_with_parent=True)
    ending.callback(server.stop, "immediate")
    return server


def _place(trace: str) -> str:
    lines = [line.strip() for line in trace.splitlines() if "tests/stress" in line]
    return lines[-1] if lines else "nowhere in tests/stress"
