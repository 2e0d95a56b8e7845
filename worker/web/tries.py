"""Wrong keys, counted by client address: who guesses is not looked at any more for a while; who was right once is."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

BURST = 20.0  # wrong tries at once
EVERY_SECONDS = 3.0  # another one
ADDRESSES = 1_000  # remembered; the one that was silent longest goes first


class Tries:
    """Tells who may try a key.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tries left at an instant, by address
        self._proven: set[str] = set()  # digests of keys that were right: there are no more than keys

    def may(self, address: str, digest: str) -> bool:
        """Whether this key is to be looked at. Those in use always are: a flood from one's own network locks nobody
        out."""
        return digest in self._proven or self._now(_network(address)) >= 1.0

    def right(self, digest: str) -> None:
        """A key of ours."""
        self._proven.add(digest)

    def wrong(self, address: str) -> None:
        """No key of ours."""
        network = _network(address)
        self._left[network] = (max(self._now(network) - 1.0, 0.0), self._clock())
        self._left.move_to_end(network)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)

    def _now(self, network: str) -> float:
        left, at = self._left.get(network, (BURST, self._clock()))
        return min(left + (self._clock() - at) / EVERY_SECONDS, BURST)


def _network(address: str) -> str:
    """Of IPv6 the /64, all of whose addresses one client has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return address
