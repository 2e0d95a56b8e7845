"""What is wrong right now and why, in sentences, the worst first. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.web.pages.words import brief, plural

LATE_SECONDS = 30.0  # of a due job, to be told
OLD_SECONDS = 600.0  # of a transaction: no vacuum cleans up behind the queue while it is open
FULL = 0.5  # of the notification queue
LEVELS = ("bad", "warning", "note")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; `level` is one of LEVELS, `link` the words of `href`."""

    level: str
    sentence: str
    href: str = ""
    link: str = ""


def findings(seen: Row, last_hour: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    """What is wrong.

    Args:
        seen: as `worker.overview` tells it.
        last_hour: by type, attempts that ended in the last hour by kind.
    """
    found = [
        *_daemons(seen["daemons"], any(type_["due"] for type_ in seen["types"])),
        *(each for type_ in seen["types"] for each in _type(type_, seen["daemons"])),
        *_failed(last_hour),
        *_schedules(seen["schedules"]),
        *_server(seen),
    ]
    return sorted(found, key=lambda each: LEVELS.index(each.level))


def state(type_: Row) -> str:
    """Of a type, in a word."""
    if not type_["declared"]:
        return "undeclared"
    if not type_["enabled"]:
        return "to fallback" if type_["fallback"] else "off"
    return "paused" if type_["paused"] else "on" if type_["daemons"] else "no daemon"


def _daemons(daemons: Sequence[Row], due: bool) -> Iterator[Finding]:
    if not any(each["state"] == "alive" for each in daemons):
        waits = "jobs are due and nobody claims them" if due else "nothing is claimed"
        yield Finding("bad", f"No daemon is alive: {waits}. Start one with `worker run`.")
    for each in daemons:
        name = f"Process {each['id']} on {each['host']}"
        if each["state"] == "silent":
            yield Finding(
                "warning",
                f"{name} has not beaten for {brief(each['beat'])}; its jobs are taken over once it counts as dead.",
            )
        elif each["unrescued"]:
            yield Finding("warning", f"{name} died; {plural(each['running'], 'job')} of it are being taken over.")
        elif each["state"] == "dead":
            yield Finding("note", f"{name} died within the hour; its jobs were taken over.")


def _type(type_: Row, daemons: Sequence[Row]) -> Iterator[Finding]:
    name, waits = type_["job_type"], type_["due"] + type_["parked"]
    link = {"href": f"/admin/jobs?type={name}&status=pending", "link": "Look at them"}
    told, how = plural(waits, "job"), state(type_)
    if how == "paused":
        yield Finding("warning", f"{name} is paused; {told} due.", "/admin/types", "Resume it")
    elif waits and how == "off":
        yield Finding("warning", f"{name} is off (enabled = false in worker.toml); {told} due.", **link)
    elif waits and how == "undeclared":
        yield Finding("warning", f"Nobody declared {name}; {told} due, which wait until a worker.toml does.", **link)
    elif waits and how == "no daemon" and any(each["state"] == "alive" for each in daemons):
        yield Finding("bad", f"No daemon that is alive runs {name}; {told} due.", **link)
    elif (type_["oldest_due"] or 0) > LATE_SECONDS and how == "on":
        yield Finding(
            "warning",
            f"{name} is late: its oldest due job waits for {brief(type_['oldest_due'])}{_why(type_, daemons)}.",
            **link,
        )


def _why(type_: Row, daemons: Sequence[Row]) -> str:
    able = [each for each in daemons if each["state"] == "alive" and type_["job_type"] in each["types"]]
    if type_["limit"] and type_["running"] >= type_["limit"]:
        return f", because as many run as its limit of {type_['limit']} allows"
    if able and all(each["running"] >= each["slots"] for each in able):
        return f", because all {plural(sum(each['slots'] for each in able), 'slot')} of its daemons are taken"
    return ""


def _failed(last_hour: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    for name, counts in last_hour.items():
        if counts["failed"]:
            href = f"/admin/jobs?type={name}&status=failed&since=1h"
            yield Finding(
                "bad", f"{plural(counts['failed'], 'job')} of {name} failed in the last hour.", href, "See and retry"
            )
        elif counts["again"] > counts["completed"]:
            href = f"/admin/jobs?type={name}&status=pending"
            told = plural(counts["again"], "attempt")
            said = f"{told} of {name} came to nothing in the last hour and are tried again."
            yield Finding("warning", said, href, "Look at them")


def _schedules(schedules: Sequence[Row]) -> Iterator[Finding]:
    for each in schedules:
        if each["state"] == "failing":
            yield Finding(
                "bad", f"The schedule {each['name']} does not fire: {each['error']}", "/admin/schedules", "Schedules"
            )
        elif each["state"] == "paused":
            yield Finding("note", f"The schedule {each['name']} is paused.", "/admin/schedules", "Schedules")


def _server(seen: Row) -> Iterator[Finding]:
    if (seen["oldest_transaction"] or 0) > OLD_SECONDS:
        held = f"{brief(seen['oldest_transaction'])} by {seen['oldest_transaction_by']}"
        yield Finding("warning", f"A transaction is held open for {held}: nothing is vacuumed behind the queue.")
    if (seen["notification_queue_use"] or 0) > FULL:
        yield Finding(
            "warning",
            f"The server's notification queue is {seen['notification_queue_use']:.0%} full: a listener does not read.",
        )
