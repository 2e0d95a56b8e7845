"""A provider of orders: a real HTTP server on loopback, for the demo of the sync and for its tests.

It serves pages to whoever shows a token that it knows, and does first whatever it was told to do at a page: answer with
an error, break off in mid-answer, keep silent.
"""

import random
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from worker.demo.receiver import Call, Receiver, Reply

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SHORT_EVERY, OVER_EVERY = 7, 11  # orders that were not shipped whole, and that were charged too much


def make_orders(seed: int, count: int) -> list[dict[str, Any]]:
    """Draw so many orders, some of which the user is owed money for; the same seed gives the same."""
    chance = random.Random(seed)
    return [_order(chance, number) for number in range(1, count + 1)]


def owed(orders: Sequence[dict[str, Any]]) -> int:
    """How many claims a detection must find in these orders."""
    short = [each for each in orders if (each["quantity"] - each["shipped"]) * each["price"] > each["refunded"]]
    over = [each for each in orders if round(each["charged"] - each["quantity"] * each["price"], 2) > 0]
    return len(short) + len(over)


class Provider(Receiver):
    """`async with Provider(orders) as provider`: serves at `provider.origin` until the end.

    Args:
        orders: what every account has.
        size: the most that a page holds, whatever is asked for.

    Attributes:
        tokens: those that count.
        asked: how often each page was asked for; the first is 1.
    """

    def __init__(self, orders: Sequence[dict[str, Any]], size: int = 10, tokens: Sequence[str] = ("secret",)) -> None:
        super().__init__()
        self.orders = list(orders)
        self.tokens = set(tokens)
        self.asked: Counter[int] = Counter()
        self._size = size
        self._trouble: defaultdict[int, deque[Reply]] = defaultdict(deque)

    @property
    def pages(self) -> int:
        """How many pages there are; one, though empty, where there are no orders."""
        return max(-(-len(self.orders) // self._size), 1)

    def trouble(self, page: int, *replies: Reply) -> None:
        """Answer the next requests for this page with these, one each."""
        self._trouble[page].extend(replies)

    def truncated(self, page: int) -> Reply:
        """The answer that a page has, broken off in the middle."""
        whole = self._page(page).body
        return Reply(200, whole[: len(whole) // 2], {"content-type": "application/json"}, "broken")

    def _answer(self, call: Call) -> Reply:
        where = urlsplit(call.path)
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return Reply.json(401, {"error": "unauthorized"})
        if call.method != "GET" or where.path not in ("/v1/account", "/v1/orders"):
            return Reply.json(404, {"error": "not found"})
        if where.path == "/v1/account":
            return Reply.json(200, {"account": "demo"})
        return self._orders(parse_qs(where.query).get("cursor", ["p1"])[0])

    def _orders(self, cursor: str) -> Reply:
        number = int(cursor[1:]) if cursor[1:].isdecimal() else 0
        if not 1 <= number <= self.pages:
            return Reply.json(400, {"error": "no such cursor"})
        self.asked[number] += 1
        return self._trouble[number].popleft() if self._trouble[number] else self._page(number)

    def _page(self, number: int) -> Reply:
        first = (number - 1) * self._size
        following = f"p{number + 1}" if number < self.pages else None
        shown = self.orders[first : first + self._size]
        return Reply.json(200, {"orders": shown, "next_cursor": following, "total": len(self.orders)})


def _order(chance: random.Random, number: int) -> dict[str, Any]:
    quantity, price = chance.randint(1, 5), round(chance.uniform(5, 80), 2)
    ordered = BEGAN + timedelta(minutes=chance.randrange(300_000))
    shipped = quantity - (number % SHORT_EVERY == 0)
    charged = round(quantity * price + (5.0 if number % OVER_EVERY == 0 else 0.0), 2)
    return {
        "order_id": f"A-{number:05}", "ordered_at": ordered.isoformat(), "updated_at": ordered.isoformat(),
        "quantity": quantity, "shipped": shipped, "price": price, "charged": charged,
        "refunded": price if number % (2 * SHORT_EVERY) == 0 else 0,
    }  # fmt: skip
