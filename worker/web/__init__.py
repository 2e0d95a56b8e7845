"""The HTTP side: health, readiness and metrics, and behind the same keys the API and the admin page."""

from worker.web.server import Web

__all__ = ["Web"]
