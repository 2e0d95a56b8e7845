"""Who is gone: judged by what one session saw without a break."""

import pytest

from worker.judge import YOUNG_POOLED_SECONDS, YOUNG_SECONDS, Judge

MISSING = {1: {"missing": True, "lapsed": False}}
LAPSED = {1: {"missing": False, "lapsed": True}}
BACK: dict[int, dict[str, bool]] = {}


@pytest.fixture
def judge() -> Judge:
    judge = Judge(3.0)
    judge.begin(1000.0)
    return judge


def watched(judge: Judge, suspects: dict[int, dict[str, bool]], began: float, seconds: float) -> list[int]:
    """Look every half second, and at the end; answers with what was judged at any time."""
    looks = [began + half / 2 for half in range(int(seconds * 2) + 1)]
    return [process for now in [*looks, began + seconds] for process in judge.gone(suspects, now)]


def test_missing_counts_only_when_seen_missing_without_a_break(judge: Judge) -> None:
    assert judge.gone(MISSING, 1000.0) == []
    assert judge.gone(MISSING, 1002.9) == []
    assert judge.gone(BACK, 1002.9) == []
    assert judge.gone(MISSING, 1003.1) == []
    assert judge.gone(MISSING, 1005.0) == []
    assert judge.gone(MISSING, 1006.2) == [1]


@pytest.mark.parametrize("suspects", [MISSING, LAPSED], ids=["missing", "lapsed"])
def test_what_was_seen_before_a_sleep_counts_no_more(judge: Judge, suspects: dict[int, dict[str, bool]]) -> None:
    """The machine slept, they with us: at the first look after it they have not been able to come back either."""
    assert judge.gone(suspects, 1010.0) == []
    assert judge.gone(suspects, 1010.5) == []
    assert judge.gone(suspects, 1070.5) == []
    assert judge.gone(suspects, 1072.0) == []
    assert judge.gone(suspects, 1073.5) == [1]


def test_lapsed_counts_only_under_an_old_session(judge: Judge) -> None:
    """After an outage every lease has lapsed, and every judge's session is young: nobody is dead."""
    assert watched(judge, LAPSED, 1000.0, YOUNG_SECONDS - 0.1) == []
    assert judge.gone(LAPSED, 1000.0 + YOUNG_SECONDS) == [1]
    judge.begin(1006.0)  # it had to connect anew
    assert watched(judge, LAPSED, 1006.0, YOUNG_SECONDS - 0.1) == []
    assert judge.gone(LAPSED, 1006.0 + YOUNG_SECONDS) == [1]


def test_behind_a_pooler_it_takes_longer_to_grow_old() -> None:
    """The pooler may let us in again long before it lets in the others."""
    judge = Judge(3.0, pooled=True)
    judge.begin(1000.0)
    assert watched(judge, LAPSED, 1000.0, YOUNG_POOLED_SECONDS - 0.1) == []
    assert judge.gone(LAPSED, 1000.0 + YOUNG_POOLED_SECONDS) == [1]


def test_a_jump_of_the_servers_clock_makes_nobody_dead(judge: Judge) -> None:
    """Every lease has lapsed at once; whoever lives renews its own before the seconds of `missing` are over."""
    now = 1000.0 + YOUNG_SECONDS
    assert judge.gone(LAPSED, now) == []
    assert judge.gone(BACK, now + 0.5) == []
    assert watched(judge, LAPSED, now + 0.5, 2.9) == []
    assert judge.gone(LAPSED, now + 3.5) == [1]


def test_each_is_judged_for_itself(judge: Judge) -> None:
    assert judge.gone(MISSING, 1000.0) == []
    assert judge.gone({**MISSING, 2: {"missing": True, "lapsed": True}}, 1002.0) == []
    assert judge.gone({**MISSING, 2: {"missing": True, "lapsed": True}}, 1003.0) == [1]
    assert judge.gone({2: {"missing": False, "lapsed": True}}, 1004.9) == []
    assert judge.gone({2: {"missing": False, "lapsed": True}}, 1005.0) == [2]
