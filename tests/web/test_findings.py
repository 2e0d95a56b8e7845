"""What is wrong right now, in sentences."""

from typing import Any

import pytest

from worker.web.pages.findings import findings

ALIVE = {
    "id": 1,
    "host": "h",
    "state": "alive",
    "types": ["work"],
    "slots": 4,
    "running": 0,
    "beat": 0.2,
    "unrescued": False,
}
TYPE = {
    "job_type": "work", "declared": True, "enabled": True, "paused": False, "fallback": False, "daemons": 1, "due": 0,
    "later": 0, "parked": 0, "running": 0, "oldest_due": None, "limit": None,
}  # fmt: skip
SCHEDULE = {"name": "nightly", "state": "on", "error": None}


def seen(type_: dict[str, Any] | None = None, daemon: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    given = {"types": [TYPE | (type_ or {})], "daemons": [ALIVE | (daemon or {})], "schedules": [SCHEDULE],
             "oldest_transaction": 1.0, "oldest_transaction_by": None, "notification_queue_use": 0.0}  # fmt: skip
    return given | more


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        (seen(daemons=[]), "bad", "No daemon is alive: nothing is claimed"),
        (seen({"due": 3}, daemons=[]), "bad", "jobs are due and nobody claims them"),
        (seen({"due": 3}, {"state": "silent", "beat": 12}), "warning", "Process 1 on h has not beaten for 12 s"),
        (
            seen(daemons=[ALIVE, ALIVE | {"state": "dead", "unrescued": True, "running": 2}]),
            "warning",
            "2 jobs of it are being",
        ),
        (seen(daemons=[ALIVE, ALIVE | {"state": "dead"}]), "note", "its jobs were taken over"),
        (seen({"paused": True, "due": 2}), "warning", "work is paused; 2 jobs due."),
        (seen({"enabled": False, "due": 1}), "warning", "work is off"),
        (seen({"declared": False, "due": 1}), "warning", "Nobody declared work; 1 job due"),
        (seen({"daemons": 0, "due": 1}), "bad", "No daemon that is alive runs work"),
        (seen({"due": 1, "oldest_due": 300}), "warning", "work is late: its oldest due job waits for 5 min."),
        (
            seen({"due": 1, "oldest_due": 300, "limit": 2, "running": 2}),
            "warning",
            "because as many run as its limit of 2",
        ),
        (
            seen({"due": 1, "oldest_due": 300}, {"running": 4}),
            "warning",
            "because all 4 slots of its daemons are taken",
        ),
        (seen(schedules=[SCHEDULE | {"state": "failing", "error": "no such function"}]), "bad", "no such function"),
        (seen(schedules=[SCHEDULE | {"state": "paused"}]), "note", "The schedule nightly is paused."),
        (seen(oldest_transaction=7200.0, oldest_transaction_by="pid 7"), "warning", "held open for 2 h by pid 7"),
        (seen(notification_queue_use=0.7), "warning", "70% full"),
    ],
)
def test_what_is_wrong(state: dict[str, Any], level: str, words: str) -> None:
    found = findings(state, {})
    assert [each.level for each in found if words in each.sentence] == [level]


def test_nothing_is() -> None:
    assert (
        findings(seen({"due": 1, "oldest_due": 3.0}), {"work": {"completed": 5, "again": 1, "failed": 0, "other": 0}})
        == []
    )


def test_what_failed_or_came_to_nothing_in_the_last_hour_and_the_worst_is_first() -> None:
    hour = {
        "work": {"completed": 1, "again": 9, "failed": 0, "other": 0},
        "pay": {"completed": 9, "again": 0, "failed": 2, "other": 0},
    }
    first, second = findings(seen(), hour)
    assert (first.level, first.sentence) == ("bad", "2 jobs of pay failed in the last hour.")
    assert (second.level, second.sentence) == (
        "warning",
        "9 attempts of work came to nothing in the last hour and are tried again.",
    )
