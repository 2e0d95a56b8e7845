"""Histograms of seconds that are filled by the hundred: the library's own cost more than all the rest of a report."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


def heaped(bounds: Iterable[float], counts: Iterable[float]) -> list[tuple[str, float]]:
    """Buckets as they are shown: each with all below it. `counts` has one more than `bounds`, for what is above all."""
    below, told = 0.0, []
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        below += count
        told.append((floatToGoString(bound), below))  # type: ignore[no-untyped-call]
    return told


class Span:
    """One series; written to by the event loop's thread alone.

    Args:
        bounds: upper bounds of its buckets, in seconds, ascending; one above all of them is added.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """How many were at most so long, by bound."""
        return heaped(self._bounds, self._counts)

    @property
    def sum(self) -> float:
        """Of all seconds."""
        return self._sum


class Spans(Collector):
    """The series of one name, by the value of one label."""

    def __init__(
        self, name: str, documentation: str, label: str, bounds: Iterable[float], registry: CollectorRegistry
    ) -> None:
        self._about = name, documentation
        self._label = label
        self._bounds = tuple(float(bound) for bound in bounds)
        self._spans: dict[str, Span] = {}
        registry.register(self)

    def labels(self, value: str) -> Span:
        """The series of this label."""
        return self._spans.setdefault(value, Span(self._bounds))

    def describe(self) -> list[HistogramMetricFamily]:
        """As `collect`, of nothing."""
        return [HistogramMetricFamily(*self._about, labels=[self._label])]

    def collect(self) -> list[HistogramMetricFamily]:
        """As a scrape reads it."""
        (family,) = self.describe()
        for label, span in list(self._spans.items()):
            family.add_metric([label], span.buckets(), span.sum)
        return [family]
