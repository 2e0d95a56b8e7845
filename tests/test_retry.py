"""Backoff: bounds for every attempt, whatever the numbers."""

from hypothesis import given
from hypothesis import strategies as st

from worker.retry import Retry

retries = st.builds(
    Retry,
    max_attempts=st.integers(1, 10_000),
    first=st.floats(0.001, 1e6),
    factor=st.floats(1, 100),
    max=st.floats(0.001, 1e8),
)
draws = st.floats(0, 1, exclude_max=True)


@given(retries, st.integers(-5, 1_000_000), draws)
def test_a_delay_lies_between_zero_and_the_ceiling(retry, attempt, draw):
    assert 0 <= retry.delay(attempt, lambda: draw) <= retry.ceiling(attempt) <= retry.max


@given(retries, st.integers(1, 100_000))
def test_the_ceiling_never_falls(retry, attempt):
    assert retry.ceiling(attempt) <= retry.ceiling(attempt + 1)


@given(retries)
def test_the_first_ceiling_is_the_first_delay(retry):
    assert retry.ceiling(1) == min(retry.first, retry.max)


def test_it_grows_by_the_factor_up_to_the_most():
    retry = Retry(first=2, factor=3, max=50)
    assert [retry.ceiling(attempt) for attempt in range(1, 6)] == [2, 6, 18, 50, 50]


def test_a_thousandth_attempt_is_no_overflow():
    assert Retry(first=2, factor=100, max=600).ceiling(1_000_000) == 600


def test_the_last_attempt_is_the_last():
    assert [Retry(max_attempts=3).exhausted(attempt) for attempt in (1, 2, 3, 4)] == [False, False, True, True]
