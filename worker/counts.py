"""Counters that are counted up by the hundred: the library's own took 0.45 µs of the 13 that a job cost its daemon."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Count:
    """One series; written to by the event loop's thread alone."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """So many more."""
        self.value += amount


class Counts(Collector):
    """The series of one name, by the values of its labels."""

    def __init__(self, name: str, documentation: str, labels: Iterable[str], registry: CollectorRegistry) -> None:
        self._about = name, documentation
        self._labels = tuple(labels)
        self._counts: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def labels(self, *values: str) -> Count:
        """The series of these labels, one value for each name."""
        assert len(values) == len(self._labels)
        return self._counts.setdefault(values, Count())

    def describe(self) -> list[CounterMetricFamily]:
        """As `collect`, of nothing."""
        return [CounterMetricFamily(*self._about, labels=self._labels)]

    def collect(self) -> list[CounterMetricFamily]:
        """As a scrape reads it."""
        (family,) = self.describe()
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count.value)
        return [family]
