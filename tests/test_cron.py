"""When a cron comes: both nights on which clocks are changed, downtime, and somebody who walks minute by minute."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.cron import GRACE, Cron, due

MINUTE = timedelta(minutes=1)
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(cron: str, zone: str, day: str) -> list[str]:
    """The runs of one local day, as the zone's clock shows them, with its offset."""
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    found, at = [], begin - timedelta(seconds=1)
    while (at := Cron(cron, zone).after(at)) < end:
        found.append(at.astimezone(ZoneInfo(zone)).strftime("%H:%M%z"))
    return found


NIGHTS = {
    "spring, the hour that is left out": ("30 2 * * *", NEW_YORK, "2027-03-14", ["03:00-0400"]),
    "spring, both times of it fall together": ("15,45 2 * * *", BERLIN, "2027-03-28", ["03:00+0200"]),
    "spring, with one that is due then": ("0 2,3 * * *", BERLIN, "2027-03-28", ["03:00+0200"]),
    "spring, outside of it": ("30 4 * * *", BERLIN, "2027-03-28", ["04:30+0200"]),
    "spring, by the time that passes": ("30 * * * *", BERLIN, "2027-03-28", None),
    "autumn, the hour that comes twice": ("30 1 * * *", NEW_YORK, "2027-11-07", ["01:30-0400"]),
    "autumn, three times of it": ("0,20,40 2 * * *", BERLIN, "2027-10-31", ["02:00+0200", "02:20+0200", "02:40+0200"]),
    "autumn, by the time that passes": (
        "*/30 1-2 * * *", BERLIN, "2027-10-31",
        ["01:00+0200", "01:30+0200", "02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"],
    ),
    "half an hour left out": ("15 2 * * *", LORD_HOWE, "2026-10-04", ["02:30+1100"]),
    "half an hour twice": ("45 1 * * *", LORD_HOWE, "2026-04-05", ["01:45+1100"]),
    "half an hour twice, by the time that passes": (
        "*/15 1 * * *", LORD_HOWE, "2026-04-05",
        ["01:00+1100", "01:15+1100", "01:30+1100", "01:45+1100", "01:30+1030", "01:45+1030"],
    ),
    "half an hour left out, every third hour": (
        "0 */3 * * *", LORD_HOWE, "2026-10-04",
        ["00:00+1030", *(f"{hour:02}:00+1100" for hour in range(3, 24, 3))],
    ),
    "no summer time": ("30 2 * * *", "UTC", "2027-03-28", ["02:30+0000"]),
}  # fmt: skip


@pytest.mark.parametrize(("cron", "zone", "day", "runs"), NIGHTS.values(), ids=NIGHTS)
def test_a_night_on_which_clocks_are_changed(cron: str, zone: str, day: str, runs: list[str] | None) -> None:
    found = local(cron, zone, day)
    assert found == runs if runs is not None else len(found) == 23


@pytest.mark.parametrize("zone", ["UTC", BERLIN, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("minute", ["02:00", "02:30", "01:30", "01:45", "03:00"])
def test_a_fixed_time_comes_once_on_every_day_of_two_years(zone: str, minute: str) -> None:
    hour, _, minutes = minute.partition(":")
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(730)]
    at, found = utc("2025-12-31T20:00") - timedelta(days=1), []
    while (at := Cron(f"{int(minutes)} {int(hour)} * * *", zone).after(at)).astimezone(ZoneInfo(zone)).year < 2028:
        found.append(at.astimezone(ZoneInfo(zone)).date())
    assert [day for day in found if day.year > 2025] == days


MISSED = {
    "skip": ("skip", 10, []),
    "last": ("last", 10, [13]),
    "all": ("all", 14, list(range(14))),
    "all, at most": ("all", 10, list(range(4, 14))),
}


@pytest.mark.parametrize(("missed", "most", "days"), MISSED.values(), ids=MISSED)
@pytest.mark.parametrize("zone", ["UTC", BERLIN])
def test_two_weeks_of_downtime(missed: str, most: int, days: list[int], zone: str) -> None:
    cron = Cron("0 2 * * *", zone)
    first = cron.after(utc("2026-10-18T12:00"))  # the clocks of Berlin are changed in these weeks
    expected = list(islice(iter_after(cron, first - MINUTE), 14))
    now = expected[-1] + timedelta(hours=9)
    assert due(cron, first, now, missed, most) == [expected[n] for n in days]


def iter_after(cron: Cron, at: datetime) -> Iterator[datetime]:
    while True:
        yield (at := cron.after(at))


@pytest.mark.parametrize(
    ("late", "made"), [(timedelta(), 1), (timedelta(seconds=1), 1), (GRACE, 1), (GRACE + timedelta(seconds=1), 0)]
)
def test_a_run_that_is_late_by_less_than_a_minute_was_not_missed(late: timedelta, made: int) -> None:
    first = utc("2026-11-22T02:00")
    assert len(due(Cron("0 2 * * *"), first, first + late, "skip", 10)) == made


def test_years_of_minutes_are_not_counted_one_by_one() -> None:
    cron, first = Cron("* * * * *", BERLIN), utc("2000-01-01T00:00")
    now = utc("2026-11-22T12:00")
    assert due(cron, first, now, "all", 3) == [now - 2 * MINUTE, now - MINUTE, now]


@pytest.mark.parametrize(
    ("alias", "run"),
    [
        ("@hourly", "2026-11-22T13:00"),
        ("@daily", "2026-11-23T00:00"),
        ("@weekly", "2026-11-29T00:00"),
        ("@monthly", "2026-12-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 0 * * 5#3", "2026-12-18T00:00"),
        ("0 0 L * *", "2026-11-30T00:00"),
        ("0 9 * * MON-FRI", "2026-11-23T09:00"),
        ("0 0 1 * 1", "2026-11-23T00:00"),
    ],
)
def test_next_run(alias: str, run: str) -> None:
    assert Cron(alias).after(utc("2026-11-22T12:00:30.5")) == utc(run)


@pytest.mark.parametrize("text", ["60 * * * *", "* 24 * * *", "0 0 31 2 *", "0 0 * * 8", "0 0 0 * *", "*/0 * * * *"])
def test_what_is_no_cron(text: str) -> None:
    with pytest.raises(ValueError, match="is no cron: bad "):
        Cron(text)


# What a person would do: walk every minute of the zone's clock, and read the fields off it.


def matches(fields: list[set[int]], at: datetime) -> bool:
    minutes, hours, weekdays = fields
    return at.minute in minutes and at.hour in hours and at.isoweekday() % 7 in weekdays


def by_hand(fields: list[set[int]], fixed: bool, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """The runs after `begin` and until `end`, minute by minute."""
    found: list[datetime] = []
    at, clock = begin - timedelta(days=2), ZoneInfo(zone)
    while at <= end:
        here, before = at.astimezone(clock), (at - MINUTE).astimezone(clock)
        hit = matches(fields, here)
        if fixed:
            hit = hit and not here.fold
            shown = before.replace(tzinfo=None) + MINUTE
            while shown < here.replace(tzinfo=None):  # minutes that the clock left out
                hit = hit or matches(fields, shown)
                shown += MINUTE
        if hit and at > begin:
            found.append(at)
        at += MINUTE
    return found


def spoken(values: set[int], whole: range) -> str:
    return "*" if values == set(whole) else ",".join(map(str, sorted(values)))


numbers = st.sets(st.integers(0, 59), min_size=1, max_size=4)
few_hours = st.sets(st.integers(0, 23), min_size=1, max_size=6) | st.just(set(range(24)))
weekdays = st.just(set(range(7))) | st.sets(st.integers(0, 6), min_size=1, max_size=3)
# Days around which the clocks of these zones are changed, and one in between.
days = st.sampled_from(
    ["2026-03-07", "2026-03-28", "2026-10-03", "2026-10-24", "2026-10-31", "2026-04-04", "2026-07-01"]
)
zones = st.sampled_from(["UTC", BERLIN, NEW_YORK, LORD_HOWE, "Africa/Casablanca", "Asia/Kolkata"])


spans = st.tuples(st.integers(0, 2 * 1440), st.integers(1, 3 * 1440))  # minutes: where it begins, how long


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[set[int]], str, datetime, datetime]:
    """A cron, what its fields hold, a zone, and from when until when to look."""
    starred, hours, week, zone = draw(st.booleans()), draw(few_hours), draw(weekdays), draw(zones)
    minutes = set(range(0, 60, 7)) if starred else draw(numbers)
    first = "*/7" if starred else spoken(minutes, range(60))
    offset, length = draw(spans)
    begin = datetime.fromisoformat(draw(days)).replace(tzinfo=UTC) + offset * MINUTE
    text = f"{first} {spoken(hours, range(24))} * * {spoken(week, range(7))}"
    return text, [minutes, hours, week], zone, begin, begin + length * MINUTE


def night(zone: str, begin: str) -> tuple[str, list[set[int]], str, datetime, datetime]:
    return "30 2 * * *", [{30}, {2}, set(range(7))], zone, utc(begin), utc(begin) + timedelta(days=3)


@settings(max_examples=120, deadline=None)
@example(night(BERLIN, "2026-03-28"))
@example(night(BERLIN, "2026-10-25T01:05"))
@given(cases())
def test_no_run_is_lost_and_none_comes_twice(case: tuple[str, list[set[int]], str, datetime, datetime]) -> None:
    text, fields, zone, begin, end = case
    minute, hour, *_ = text.split()
    fixed = zone != "UTC" and not minute.startswith("*") and not hour.startswith("*")
    expected = by_hand(fields, fixed, zone, begin, end)
    cron = Cron(text, zone)

    forward, at = [], begin
    while (at := cron.after(at)) <= end:
        forward.append(at)
    assert forward == expected
    if expected:
        assert due(cron, expected[0], end, "all", 1_000_000) == expected
