"""A claimed row: payload, columns, and what cannot be decoded."""

import contextlib

import pytest

from tests.heart import job
from worker.errors import InvalidJob
from worker.job import Status


def test_the_payload_is_decoded_once():
    made = job(text='{"a": [1, 2.5, null, "x"]}')
    assert made.payload == {"a": [1, 2.5, None, "x"]}
    assert made.payload is made.payload


@pytest.mark.parametrize("text", ["[" * 5_000 + "]" * 5_000, "", "{", '{"a": 1e}'])
def test_a_payload_that_python_cannot_read_is_the_jobs_own_trouble(text):
    with pytest.raises(InvalidJob, match="cannot be decoded"):
        _ = job(text=text).payload


@pytest.mark.parametrize("number", ["12345678901234567890123", "-9223372036854775809", "9" * 4_300])
def test_whole_numbers_keep_every_digit(number):
    assert job(text=f'{{"n": {number}}}').payload == {"n": int(number)}


def test_a_number_of_more_digits_than_python_reads_is_invalid():
    with pytest.raises(InvalidJob, match="cannot be decoded: a number of 4301 digits"):
        _ = job(text="1" * 4_301).payload


@pytest.mark.parametrize("number", ["9" * 5_000, "1e400"])
def test_numbers_too_long_for_python_strand_nobody(number):
    with contextlib.suppress(InvalidJob):
        assert job(text=f'{{"n": {number}}}').payload["n"] is not None


def test_names_mean_columns_first_then_payload_keys():
    made = job(
        id=7, tenant_id="t", correlation_id="c", text='{"id": 99, "tenant_id": "no", "x": {"y": 1}, "none": null}'
    )
    assert [made.value(name) for name in ("id", "tenant_id", "job_type", "correlation_id")] == [7, "t", "work", "c"]
    assert made.value("x") == {"y": 1}
    assert made.value("none") is None


@pytest.mark.parametrize("text", ["{}", "[1]", '"text"', "3", "null"])
def test_a_name_that_is_nowhere_is_named(text):
    with pytest.raises(InvalidJob, match="no key 'season'"):
        job(text=text).value("season")


def test_two_statuses_are_not_final():
    assert {status for status in Status if not status.final} == {Status.PENDING, Status.RUNNING}
