"""The HTTP side: health, readiness and metrics now; the API and the admin page stand behind the same keys."""

from worker.web.server import Web

__all__ = ["Web"]
