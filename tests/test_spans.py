"""Our histograms say what the library's own would say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from worker.spans import Spans

BOUNDS = (0.001, 0.25, 1, 10, 3600)
seconds = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1e6))


def page(make, observed) -> str:
    registry = CollectorRegistry()
    series = make(registry)
    for label, value in observed:
        series.labels(label).observe(value)
    return generate_latest(registry).decode()


@given(st.lists(st.tuples(st.sampled_from("ab"), seconds), max_size=30))
def test_a_scrape_reads_as_one_of_the_librarys(observed):
    ours = page(lambda registry: Spans("name", "What.", "kind", BOUNDS, registry), observed)
    theirs = page(lambda registry: Histogram("name", "What.", ["kind"], buckets=BOUNDS, registry=registry), observed)
    assert ours == theirs


def test_a_name_is_taken_once():
    registry = CollectorRegistry()
    Spans("name", "What.", "kind", BOUNDS, registry)
    with pytest.raises(ValueError, match="name"):
        Spans("name", "What.", "kind", BOUNDS, registry)
