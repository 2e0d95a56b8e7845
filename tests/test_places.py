"""Places are kept for a second, and what is forgotten is not brought back."""

import pytest

from worker import places
from worker.places import Places


@pytest.fixture
def known(monkeypatch):
    kept(monkeypatch)
    return Places()


def kept(monkeypatch):
    monkeypatch.setattr(places, "SECONDS", 3600)


def past(monkeypatch):
    monkeypatch.setattr(places, "SECONDS", 0)


def test_a_look_is_given_what_the_one_before_it_came_to(known):
    since, after = known.after()
    assert after is None
    known.reached(since, '{"plain 100": 1}')
    assert known.after() == (since, '{"plain 100": 1}')
    known.reached(since, None)  # a short batch
    assert known.after() == (since, None)


def test_after_a_second_looks_begin_from_the_beginning(known, monkeypatch):
    since, _ = known.after()
    known.reached(since, "{}")
    past(monkeypatch)
    later, after = known.after()
    assert after is None
    assert later > since


def test_a_look_of_before_does_not_bring_them_back(known, monkeypatch):
    slow, _ = known.after()
    past(monkeypatch)
    quick, _ = known.after()
    kept(monkeypatch)
    known.reached(quick, '{"new 1": 1}')
    known.reached(slow, '{"old 1": 1}')
    assert known.after() == (quick, '{"new 1": 1}')
