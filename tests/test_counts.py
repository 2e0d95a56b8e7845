"""Our counters say what the library's own would say."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest

from worker.counts import Counts


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), st.integers(0, 10**9)), max_size=30))
def test_a_counter_reads_as_one_of_the_librarys(counted):
    pages = []
    for make in (Counts, lambda *about, registry: Counter(*about, registry=registry)):
        registry = CollectorRegistry()
        series = make("name", "What.", ["kind", "outcome"], registry=registry)
        for *labels, amount in counted:
            series.labels(*labels).inc(amount)
        pages.append(generate_latest(registry).decode())
    assert pages[0] == pages[1]
