"""Asking a platform: with a permit for every request, and what it answers turned into what the job is to do."""

from contextlib import suppress

from worker import Answer, Context, Later, Permanent, Request, TooSlow, Unreachable, WorkerError
from worker.jobs.games.terms import Terms

TRIES = 3  # of a request whose answer broke off, within one attempt
MOST_RESTS = 10  # times rest_seconds


class TooMany(WorkerError):
    """The platform wants to be left alone for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"asked too often; again in {seconds:g} s")
        self.seconds = seconds


class Asker:
    """The way of one attempt to one platform.

    Args:
        rate: the bucket in worker.toml from which every request takes a permit, on whichever machine it is made.
    """

    def __init__(self, context: Context, terms: Terms, rate: str) -> None:
        self.context = context
        self._terms = terms
        self._rate = rate

    async def get(self, url: str, accept: str) -> tuple[bytes, bool]:
        """The answer's body, and whether it said how long it is: of one that did not, nobody knows if it is whole.

        Raises:
            Permanent: there is no such player, or the answer is too large.
            TooMany: 429.
            Later: any other status that is no success.
            Unreachable, TooSlow: it broke off, several times.
        """
        answer = await self._answer(url, accept)
        if answer.status == 429:
            raise TooMany(self._rest(answer, self._terms.rest_seconds))
        if answer.status in (404, 410):
            raise Permanent(f"{self._rate}: there is no such player ({answer.status})")
        if answer.status != 200:
            raise Later(f"{self._rate} answered {answer.status}", self._rest(answer, 0.0))
        if not answer.whole:
            raise Permanent(f"{self._rate}: an answer is larger than page_bytes = {self._terms.page_bytes}")
        return answer.body, "content-length" in answer.headers or "transfer-encoding" in answer.headers

    async def _answer(self, url: str, accept: str) -> Answer:
        terms = self._terms
        request = Request("GET", url, headers={"accept": accept}, timeout=terms.request_seconds, most=terms.page_bytes)
        for _ in range(TRIES - 1):
            with suppress(Unreachable, TooSlow):
                return await self._asked(request)
        return await self._asked(request)

    async def _asked(self, request: Request) -> Answer:
        await self.context.permit(self._rate)
        return await self.context.http(request)

    def _rest(self, answer: Answer, otherwise: float) -> float:
        return min(answer.retry_after or otherwise, MOST_RESTS * self._terms.rest_seconds)
