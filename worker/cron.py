"""When a cron comes, and which of the runs that are due are made; pure, and right when clocks are changed.

A cron whose minute and hour are both fixed runs once for each of its times of day: one that a clock set forward leaves
out comes when it has been set, one that comes twice is taken the first time. A cron with a star in front of its minute
or hour goes by the time that passes, whatever the clock shows twice or never. Those are the rules of Debian's cron.
"""

import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
GRACE = timedelta(seconds=60)  # a run that is later than that was missed

_AROUND = timedelta(hours=4)  # more than clocks are set at once
_SECOND = timedelta(seconds=1)
_LOOKS = [timedelta(days=14) * n for n in range(28)]  # at the zone's offset, over a year: none lasts for less


class Cron:
    """Five fields, or an alias such as @daily, in a time zone.

    Raises:
        ValueError: they are no cron, or never come.
        LookupError, OSError: no such zone.
    """

    def __init__(self, text: str, zone: str = "UTC") -> None:
        self._fields = ALIASES.get(text, text)
        self._zone: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
        try:
            self._fixed = CronSim(self._fields, datetime(2000, 1, 1, tzinfo=self._zone)).fixup_tz is not None
        except CronSimError as error:
            raise ValueError(f"is no cron: {str(error).lower()}") from None

    def after(self, instant: datetime) -> datetime:
        """The first run later than an instant; in UTC, as all that is given here."""
        for run in self._runs(instant, back=False):
            if run > instant:
                return run
        raise ValueError("never comes")

    def until(self, instant: datetime) -> Iterator[datetime]:
        """The runs at or before an instant, the newest first."""
        return (run for run in self._runs(instant, back=True) if run <= instant)

    def _runs(self, instant: datetime, back: bool) -> Iterator[datetime]:
        if self._fixed:
            # Of an hour that comes twice only the first is known here, so both directions begin outside of it.
            start = (instant + _AROUND if back else instant - _AROUND).astimezone(self._zone)
            return (run.astimezone(UTC) for run in CronSim(self._fields, start, reverse=back))
        return self._passing(instant, back)

    def _passing(self, instant: datetime, back: bool) -> Iterator[datetime]:
        # Runs under each offset that the zone has, of which those count where it has that offset: sound also where
        # clocks are set by half an hour.
        looks = (instant - look if back else instant + look for look in _LOOKS)
        offsets = {look.astimezone(self._zone).utcoffset() or timedelta() for look in looks}
        streams = (self._under(offset, instant, back) for offset in offsets)
        for run, offset in heapq.merge(*streams, reverse=back):
            if run.astimezone(self._zone).utcoffset() == offset:
                yield run

    def _under(self, offset: timedelta, instant: datetime, back: bool) -> Iterator[tuple[datetime, timedelta]]:
        start = (instant + offset + (_SECOND if back else -_SECOND)).replace(tzinfo=None)
        for local in CronSim(self._fields, start, reverse=back):
            yield (local - offset).replace(tzinfo=UTC), offset


def due(cron: Cron, first: datetime, now: datetime, missed: str, most: int) -> list[datetime]:
    """Which of the runs from `first` until `now` are made, the oldest first.

    Args:
        missed: `skip`, none that is a minute late; `last`, the newest; `all`, the newest `most`.
    """
    newest = islice(takewhile(lambda run: run >= first, cron.until(now)), most if missed == "all" else 1)
    return [run for run in reversed(list(newest)) if missed != "skip" or now - run <= GRACE]
