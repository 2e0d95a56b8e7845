"""How many jobs more may be claimed."""

import asyncio

import pytest

from worker import lane
from worker.lane import Lane


def test_beyond_its_size_no_more_than_finished_lately_and_no_more_than_prefetch(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(lane.time, "monotonic", lambda: now[0])
    two = Lane(2, 3)
    assert two.room() == 2
    for _ in range(6):
        two.started()
        two.ended(ran=True)
    assert two.room() == 2 + 3
    two.started()
    two.ended(ran=False)
    assert two.room() == 2 + 3
    now[0] += lane.LATELY
    assert two.room() == 2


def test_an_end_tells_whether_there_was_no_room_before_it():
    two = Lane(2, 0)
    two.started()
    assert two.ended(ran=True) is False
    two.started()
    two.started()
    assert two.ended(ran=True) is True  # what was due was not looked for meanwhile
    assert two.ended(ran=False) is False


def test_what_a_claim_on_its_way_asks_for_is_not_asked_for_twice():
    ten, changed = Lane(10, 0), asyncio.Event()
    with ten.asking(6, changed):
        assert ten.room() == 4
        with ten.asking(4, changed):
            assert ten.room() == 0
        assert ten.room() == 4
    assert ten.room() == 10
    assert changed.is_set()


def test_a_claim_that_fails_leaves_its_room():
    ten, changed = Lane(10, 0), asyncio.Event()
    with pytest.raises(ConnectionResetError), ten.asking(6, changed):
        raise ConnectionResetError
    assert ten.room() == 10
    assert changed.is_set()
