"""A provider of orders as the sync asks it: `GET /v1/account`, then `GET /v1/orders` page by page, with a bearer token.

A page is `{"orders": [{…}, …], "next_cursor": "…" | null, "total": 230}`.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from worker import Answer, Context, Held, Later, Permanent, Request

_FIELDS = ("order_id", "ordered_at", "updated_at", "quantity", "shipped", "price", "charged")
_TEXTS = _FIELDS[:3]


class AuthExpired(Permanent):
    """The provider takes the token no more: the user has to connect again."""


class ProviderDown(Later):
    """The provider failed; said with the seconds that it asks to be left alone, where it does."""


class BadPage(Later):
    """What came is no page of orders, or not all of one."""


class Wait(Exception):
    """Nothing is wrong: the provider asks to be left alone for `delay` seconds; None where it does not say how long."""

    def __init__(self, said: str, delay: float | None) -> None:
        super().__init__(said)
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Page:
    """Orders, and where the next ones are: None after the last page."""

    orders: list[dict[str, Any]]
    next_cursor: str | None
    total: int | None = None


class Provider:
    """One user's account at a provider.

    Args:
        address: from the configuration, never from a row.
        timeout: seconds for one answer.
        most: bytes of an answer.
        permit: the rate that every request is counted against.
    """

    def __init__(
        self, context: Context, address: str, token: str, *, timeout: float, most: int, permit: str | None = None
    ) -> None:
        self._context = context
        self._address = address.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._most = most
        self._permit = permit

    async def check(self) -> None:
        """Ask whether the token counts; raises as `page` does."""
        await self._get("/v1/account")

    async def page(self, cursor: str | None, size: int) -> Page:
        """The page at a cursor.

        Raises:
            AuthExpired: the token does not count.
            Wait: too many requests.
            ProviderDown, BadPage: no page came of it.
            OutboundError: no answer did.
        """
        asked = {"limit": size} | ({} if cursor is None else {"cursor": cursor})
        answer = await self._get(f"/v1/orders?{urlencode(asked)}")
        try:
            return _read(answer.json())
        except ValueError as error:
            raise BadPage(f"the page is no page: {error}") from None

    async def _get(self, path: str) -> Answer:
        if self._permit is not None:
            await self._context.permit(self._permit)
        request = Request(
            "GET", self._address + path, headers={"authorization": f"Bearer {self._token}"},
            timeout=self._timeout, most=self._most,
        )  # fmt: skip
        try:
            answer = await self._context.http(request)
        except Held as held:
            raise Wait(str(held), held.delay) from None
        _judge(answer)
        return answer


def _judge(answer: Answer) -> None:
    status, delay = answer.status, answer.retry_after
    if status in (401, 403):
        raise AuthExpired(f"the provider answered {status}: connect the account again")
    if status == 429 or (status == 503 and delay is not None):
        raise Wait(f"the provider answered {status}", delay)
    if status >= 500:
        raise ProviderDown(f"the provider answered {status}", delay or 0.0)
    if status != 200:
        raise BadPage(f"the provider answered {status}")


def _read(page: Any) -> Page:
    """A page, checked as far as SQL would not say better what is wrong; raises ValueError."""
    if not isinstance(page, dict) or not isinstance(page.get("orders"), list):
        raise ValueError("it has no array of orders")
    if not isinstance(page.get("next_cursor"), str | None) or page.get("next_cursor") == "":
        raise ValueError("its next_cursor is no text")
    for order in page["orders"]:
        if not isinstance(order, dict) or any(order.get(name) is None for name in _FIELDS):
            raise ValueError(f"an order lacks one of {', '.join(_FIELDS)}")
        if not all(isinstance(order[name], str) and order[name] for name in _TEXTS):
            raise ValueError(f"an order's {', '.join(_TEXTS)} are texts")
    total = page.get("total")
    return Page(page["orders"], page.get("next_cursor"), total if isinstance(total, int) else None)
