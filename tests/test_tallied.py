"""What all daemons counted, as a scrape reads it: bounded, and steady."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry

from worker import tallied as module
from worker.outcome import Outcome
from worker.series import COUNTED
from worker.tallied import Tallied

FINISHED = "worker_jobs_finished_total"
Row = tuple[str, dict[str, str], float]


def shown(rows: Iterable[Row], types: Iterable[str] = ("a", "b", "c"), schedules: Iterable[str] = ("s",)) -> Tallied:
    tallied = Tallied(CollectorRegistry())
    tallied.show(rows, set(types), set(schedules))
    return tallied


def values(tallied: Tallied, series: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in tallied.collect()
        for sample in family.samples
        if sample.name == series
    }


def finished(job_type: str, value: float = 1.0, outcome: str = "completed") -> Row:
    return FINISHED, {"job_type": job_type, "outcome": outcome}, value


@pytest.mark.parametrize(
    ("series", "labels", "found"),
    [
        (FINISHED, {"job_type": "a", "outcome": "failed"}, ("a", "failed")),
        (FINISHED, {"job_type": "nobody", "outcome": "failed"}, ("other", "failed")),
        (FINISHED, {"job_type": "a", "outcome": "x"}, ("a", "other")),
        (FINISHED, {}, ("other", "other")),
        ("worker_database_errors_total", {"sqlstate_class": "ZZ"}, ("other",)),
        ("worker_outbound_total", {"job_type": "a", "result": "x"}, ("a", "other")),
        ("worker_schedule_lateness_seconds_sum", {"schedule": "s"}, ("s",)),
        ("worker_schedule_lateness_seconds_sum", {"schedule": "t"}, ("other",)),
        ("worker_step_duration_seconds_sum", {"job_type": "a", "step": "x"}, ("a", "x")),
        ("worker_step_duration_seconds_sum", {"job_type": "a", "step": "X y"}, ("a", "other")),
        ("worker_step_duration_seconds_sum", {"job_type": "nobody", "step": "x"}, ("other", "other")),
        ("worker_rescues_total", {"job_type": "a"}, ()),
    ],
)
def test_labels_are_what_is_declared(series: str, labels: dict[str, str], found: tuple[str, ...]) -> None:
    assert values(shown([(series, labels, 7.0)]), series)[found] == 7


# Of the module's own: other tests make outcomes of theirs.
OUTCOMES = [each for each in Outcome.__subclasses__() if each.__module__ == Outcome.__module__]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_has_a_label(outcome: type[Outcome]) -> None:
    named = outcome.__name__.lower()
    assert values(shown([finished("a", 7.0, named)]), FINISHED)["a", named] == 7


@pytest.mark.parametrize(
    "series", ["worker_rescues", "worker_x_total", "worker_rescues_sum_total", "", "rescues_total"]
)
def test_names_of_another_release_are_left_out(series: str) -> None:
    tallied = shown([(series, {}, 7.0)])
    assert 7 not in [sample.value for family in tallied.collect() for sample in family.samples]


def test_buckets_are_heaped_up() -> None:
    rows: list[Row] = [
        ("worker_job_wait_seconds_bucket", {"job_type": "a", "le": le}, count)
        for le, count in (("0.005", 1.0), ("0.01", 2.0), ("+Inf", 4.0), ("0.007", 8.0), ("nonsense", 16.0))
    ]
    tallied = shown([*rows, ("worker_job_wait_seconds_sum", {"job_type": "a"}, 2.5)])
    buckets = values(tallied, "worker_job_wait_seconds_bucket")
    assert [buckets["a", le] for le in ("0.005", "0.01", "86400.0", "+Inf")] == [1, 11, 11, 31]
    assert values(tallied, "worker_job_wait_seconds_count") == {("a",): 31}
    assert values(tallied, "worker_job_wait_seconds_sum") == {("a",): 2.5}


def test_beyond_the_bound_the_younger_ones_are_other_and_stay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    rows = [finished("b", 10), finished("c", 20), finished("other", 1)]
    assert values(shown(rows), FINISHED)["other", "completed"] == 1
    tallied = shown([*rows, finished("a", 5), finished("a", 3, "failed")])
    found = values(tallied, FINISHED)
    assert [found[each, "completed"] for each in ("b", "c", "other")] == [10, 20, 6]
    assert found["other", "failed"] == 3
    assert ("a", "completed") not in found
    assert tallied.left_out == 2


def test_what_alerts_ask_about_stands_at_zero() -> None:
    tallied = shown([])
    assert values(tallied, FINISHED)["a", "failed"] == values(tallied, "worker_rescues_total")[()] == 0
    assert values(tallied, "worker_schedule_lateness_seconds_count") == {("s",): 0}
    assert {family.name for family in tallied.collect()} == set(COUNTED)


def test_it_fits_any_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    types = [f"t{n}" for n in range(1000)]
    outcomes = ("completed", "failed", "retried", "x")
    tallied = shown((finished(each, 1, outcome) for each in types for outcome in outcomes), types, types)
    series = [sample for family in tallied.collect() for sample in family.samples if "le" not in sample.labels]
    assert len(series) <= 320
    assert sum(values(tallied, FINISHED).values()) == 4000
