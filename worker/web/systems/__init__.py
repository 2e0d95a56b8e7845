"""Routes of the shipped systems, each there when worker.toml declares its job type.

They call the system's own SQL functions, and nothing of its Python.
"""

from collections.abc import Iterable

from fastapi import APIRouter

from worker.web.systems import games, stats, sync

_ROUTERS = {"stats_update": stats.router, "sync": sync.router, "sync_games": games.router}


def routers(job_types: Iterable[str]) -> list[APIRouter]:
    """Those of the systems that these job types belong to."""
    return [_ROUTERS[name] for name in job_types if name in _ROUTERS]
