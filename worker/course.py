"""The course that a job took: its steps over time, for whoever draws them. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

Step = Mapping[str, Any]


def stranded(step: Step, job: Mapping[str, Any]) -> bool:
    """Whether nobody runs this step any more and nobody could say so: its process was killed, or lost its claim."""
    return bool(step["status"] == "running" and job["status"] != "running")


def drawn(step: Step, job: Mapping[str, Any]) -> dict[str, Any]:
    """The step as it is drawn: a stranded one until the end of its job, or without time where the job goes on.

    Args:
        step, job: as `worker.show_job` gives them.
    """
    if not stranded(step, job):
        return dict(step)
    end: dict[str, Any] = {"status": "failed", "began": None, "seconds": None}
    if job["finished_at"] and step["started_at"]:
        ran = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(step["started_at"])
        end = {"status": "failed", "began": step["began"], "seconds": max(ran.total_seconds(), 0.0)}
    return {**step, **end}


def ended(step: Step) -> float:
    """Seconds after the first step's start; before all others where it never ran."""
    return -1.0 if step["began"] is None else float(step["began"]) + float(step["seconds"] or 0.0)


def critical(steps: Sequence[Step], needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The path that made the job as long as it was: from the step that ended last back over the need that ended last.

    Returns:
        Names in the order in which they ran; none where nobody needs anybody.
    """
    ran = {step["name"]: step for step in steps if step["began"] is not None}
    if not ran or not any(needs.get(name) for name in ran):
        return []
    path = [max(ran, key=lambda name: ended(ran[name]))]
    while before := [need for need in needs.get(path[0], ()) if need in ran and need not in path]:
        path.insert(0, max(before, key=lambda name: ended(ran[name])))
    return path
