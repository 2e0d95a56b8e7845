"""What systemd is told (Type=notify): READY=1 when the daemon claims, STOPPING=1 when it drains, WATCHDOG=1 while it is
well. Elsewhere nothing.
"""

import asyncio
import os
import socket
from collections.abc import Callable

import structlog


def told(asked: asyncio.Event) -> Callable[[int], None]:
    """The callback for `ready`; from now on, the stop is told as soon as it is asked."""
    watching = asyncio.ensure_future(asked.wait())
    watching.add_done_callback(lambda done: None if done.cancelled() else notify("STOPPING=1"))
    return lambda _: notify("READY=1")


def watchdog_seconds() -> float | None:
    """How long systemd waits for WATCHDOG=1 (WatchdogSec=), if it does."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    meant = not pid or pid == str(os.getpid())
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) and meant else None


def notify(state: str) -> None:
    """One datagram to NOTIFY_SOCKET, a path or an abstract name (@); a failure is logged, never raised."""
    name = os.environ.get("NOTIFY_SOCKET")
    if not name:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1)
            sender.sendto(state.encode(), f"\0{name[1:]}" if name.startswith("@") else name)
    except OSError as error:
        structlog.get_logger().warning("notify.failed", state=state, error=str(error))
