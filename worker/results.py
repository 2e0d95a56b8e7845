"""Numbers of results as gauges: what the job of a type that completed last found, whichever daemon ran it."""

from collections.abc import Mapping, Sequence

import orjson

from worker.database import DATABASE_ERRORS
from worker.job_queue import JobQueue
from worker.metrics import Metrics

RESULTS_EVERY = 60.0  # seconds between looks


class Results:
    """Samples them, so that a scrape costs no query.

    Args:
        wanted: by type, the keys of its result; those whose value is a number are shown.
    """

    def __init__(self, queue: JobQueue, metrics: Metrics, wanted: Mapping[str, Sequence[str]]) -> None:
        self._queue = queue
        self._metrics = metrics
        self._wanted = {job_type: keys for job_type, keys in wanted.items() if keys}

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._wanted)

    async def sample(self) -> None:
        """Set the gauges from one call; what is not known, or no number, has none."""
        try:
            rows = await self._queue.last_results(list(self._wanted))
        except DATABASE_ERRORS:
            self._metrics.forget_results()
            raise
        self._metrics.forget_results()
        for row in rows:
            result = orjson.loads(row["result"]) if row["result"] else None
            numbers = result if isinstance(result, dict) else {}
            for key in self._wanted[row["job_type"]]:
                if isinstance(value := numbers.get(key), int | float):
                    self._metrics.result.labels(row["job_type"], key).set(value)
            self._metrics.result_age.labels(row["job_type"]).set(row["age"])
