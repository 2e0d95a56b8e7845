"""The history check sees what is wrong with a history, and reads the server's log right."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.stress.history import Call, lives, logged, overlaps, steps, writes

LOG = """\
@1763778000.100 41 0 LOG:  duration: 0.020 ms  parse __asyncpg_stmt_1__: select * from worker.claim($1, $2, $3, $4)
@1763778000.110 41 700 LOG:  duration: 5.000 ms  execute __asyncpg_stmt_1__: select * from worker.claim($1, $2, $3, $4)
@1763778000.110 41 700 DETAIL:  Parameters: $1 = '1', $2 = '7', $3 = '{work}', $4 = '8'
@1763778000.200 42 701 LOG:  duration: 40.000 ms  execute __asyncpg_stmt_2__: select ran, result from
\tworker.run_step($1, $2, $3, $4, $5, $6, $7, $8)
@1763778000.200 42 701 DETAIL:  parameters: $1 = '3', $2 = '12', $3 = 'a', $4 = 'step_a', $5 = '', $6 = '{}'
@1763778000.250 42 0 ERROR:  division by zero
@1763778000.300 41 702 LOG:  duration: 2.000 ms  execute __asyncpg_stmt_3__: select * from worker.settle($1, $2)
@1763778000.300 41 702 DETAIL:  parameters: $1 = '1', $2 = '{"(3,12,completed,,0,,t,f,t,,\\"{\\"\\"a\\"\\": 1}\\",,)","(4,13,failed,x,0,,t,f,t,,,,)"}'
@1763778000.305 41 704 LOG:  duration: 2.000 ms  execute __asyncpg_stmt_4__: select worker.complete($1, $2::text::bigint[], $3::text::bigint[])
@1763778000.305 41 704 DETAIL:  parameters: $1 = '1', $2 = '{5,6}', $3 = '{14,15}'
@1763778000.310 41 703 LOG:  duration: 1.000 ms  statement: select worker.sweep()
"""  # noqa: E501


def test_the_log_is_read(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text(LOG)
    calls = list(logged(tmp_path / "server.log"))
    assert [(call.xid, call.function, set(call.named)) for call in calls] == [
        (700, "claim", set()), (701, "run_step", {(3, 12)}), (702, "settle", {(3, 12), (4, 13)}),
        (704, "complete", {(5, 14), (6, 15)}), (703, "sweep", set()),
    ]  # fmt: skip
    assert calls[1].began == pytest.approx(calls[1].ended - 0.04)


def call(xid: int, function: str, *named: tuple[int, int]) -> Call:
    return Call(float(xid), xid + 0.5, xid, function, frozenset(named))


def change(xid: int, old: int | None, new: int | None) -> Mapping[str, Any]:
    """Of job 1: from one claim to another; none is pending or final."""
    return {
        "at": xid + 0.2, "xid": xid, "job_id": 1,
        "old_status": "running" if old else "pending", "new_status": "running" if new else "completed",
        "old_claim": old or 0, "new_claim": new or old,
    }  # fmt: skip


def wrong(changes: list[Mapping[str, Any]], *calls: Call) -> str:
    found, said = lives(changes, calls)
    return "\n".join([*said, *overlaps(found.values()), *writes(found, calls)])


def test_a_claim_a_rescue_and_a_settle_are_a_life() -> None:
    told = [change(1, None, 5), change(2, 5, 6), change(4, 6, None)]
    stale = call(3, "settle", (1, 5))
    assert wrong(told, call(1, "claim"), call(2, "rescue"), stale, call(4, "settle", (1, 6))) == ""


def test_what_is_no_life_is_said() -> None:
    claim, settle = call(1, "claim"), call(9, "settle", (1, 5))
    ends = [change(1, None, 5), change(9, 5, None)]
    assert wrong(ends, claim, settle) == ""
    assert wrong(ends, claim, call(9, "complete", (1, 5))) == ""
    assert "settled by a call that names another" in wrong(ends, claim, call(9, "complete", (1, 4)))
    assert "settled by a call that names another" in wrong(ends, claim, call(9, "settle", (1, 4), (1, 5 - 2)))
    assert "its settle was refused" in wrong(ends, claim, call(3, "settle", (1, 5)), settle)
    assert "which never was" in wrong(ends, claim, settle, call(9, "settle", (2, 2)))
    assert "was made by beat" in wrong(ends, call(1, "beat"), settle)
    assert "was made by no call" in wrong(ends, settle)
    assert "was ended by sweep" in wrong(ends, claim, call(9, "sweep"))
    assert "and did not live" in wrong([*ends, change(11, 5, None)], claim, settle)
    twice = [change(1, None, 5), change(2, None, 6), change(9, 5, None)]
    assert "claim 6 began while 5 lived" in wrong(twice, claim, call(2, "claim"), settle)


def test_marks_and_effects_outside_of_a_life_are_said() -> None:
    calls = [call(1, "claim"), call(2, "run_step", (1, 5)), call(3, "settle", (1, 5)), call(4, "run_step", (1, 5))]
    found, _ = lives([change(1, None, 5), change(3, 5, None)], calls)
    inside, outside = ({"at": at, "xid": int(at), "job_id": 1, "claim": 5, "step": "a"} for at in (2.3, 4.3))
    assert list(steps(found, calls, [inside], [inside])) == []
    assert len(list(steps(found, calls, [outside], [outside]))) == 2
    assert len(list(steps(found, calls[:1], [], [inside]))) == 1
