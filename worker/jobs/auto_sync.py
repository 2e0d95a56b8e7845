"""The auto sync: who has not answered is reminded once, and a sync that nobody ends is paused, and stopped in the end.

    [job.reminder_24h]
    python = "worker.jobs.auto_sync:reminder"

What is due and who is told is decided in sql/jobs/auto_sync alone; here it is sent. A row of the outbox is `sending`
before the provider is asked, and whatever happens then, nobody is sent it twice.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from worker import Completed, Context, InvalidJob, Later, Outcome, Skipped, Snoozed
from worker.jobs import sms

LAST_SECONDS = 5.0  # that a text under way is given when its job is interrupted
_CUT_OFF = "the attempt before this one did not come to its end"
REMINDER, NOTICE, SUMMARY = "reminder", "reminder_notice", "pause_summary"

_REMIND = "select * from auto_sync.begin_reminder($1, $2)"
_CONCLUDE = "select auto_sync.conclude_reminder($1, $2)"
_PAUSE = "select * from auto_sync.pause($1, $2)"
_END = "select * from auto_sync.end_check($1, $2)"
_AGAIN = "select auto_sync.next_due($1, $2)"
_NEXT = "select * from auto_sync.next_message($1, $2, $3, $4, $5)"
_DOUBT = "select * from auto_sync.in_doubt($1, $2, $3, $4)"
_NOTE = "select auto_sync.note_message($1, $2, $3, $4, $5)"


async def reminder(context: Context) -> Outcome:
    """Remind everybody who has not answered, each once, and tell the organizer how many got it.

    Returns:
        Completed with the counts (total, responded, asked, sent, failed, unknown, skipped), Snoozed until it is due, or
        Skipped when there is nobody to be reminded any more.

    Raises:
        Later: the provider did not take a text, or nobody knows whether it did; the others wait.
        InvalidJob: no sync_id, or no such provider.
    """
    sync = _sync(context)
    now = await _ask(context, _REMIND, sync, context.job.id)
    if now["action"] != "send":
        return _nothing(now)
    await _Sending(context, sync, REMINDER, now["cycle"]).all()
    concluded = await _value(context, _CONCLUDE, sync, now["cycle"])
    if concluded is None:
        return Skipped("Auto sync not found")
    counts: dict[str, int] = json.loads(concluded)
    if counts.pop("queued"):
        raise Later("somebody else has this reminder in hand")
    await _Sending(context, sync, NOTICE, now["cycle"]).all()
    return await _over(context, sync, Completed(counts))


async def pause_check(context: Context) -> Outcome:
    """Pause a sync that is still running when its time has come, and tell the organizer how it stands.

    Returns:
        Completed, Snoozed until it is due, or Skipped when it is not running any more.

    Raises:
        Later, InvalidJob: as `reminder`; paused it is then all the same.
    """
    sync = _sync(context)
    now = await _ask(context, _PAUSE, sync, context.job.id)
    if now["action"] != "send":
        return _nothing(now)
    await _Sending(context, sync, SUMMARY, now["cycle"]).all()
    return await _over(context, sync, Completed({"paused": True}))


async def end_check(context: Context) -> Outcome:
    """Stop a sync when the last of its options is over.

    Returns:
        Completed when it is stopped, Snoozed until the next option is over, or Skipped when it was at its end.
    """
    now = await _ask(context, _END, _sync(context), context.job.id)
    return Completed({"stopped": True}) if now["action"] == "done" else _nothing(now)


class _Sending:
    """Rows of the outbox of one kind, one after the other."""

    def __init__(self, context: Context, sync: UUID, kind: str, cycle: int) -> None:
        self._context = context
        self._which = (sync, kind, cycle)
        self._provider = _provider(context)
        self._done = 0

    async def all(self) -> None:
        """Send what is queued, after asking for what attempts before this one left in doubt."""
        claim = self._context.job.claim
        async with self._context.connection() as connection:
            left = await connection.fetch(_DOUBT, *self._which, claim)
        for id_, phone, body, reference, unknown in left:
            await self._resolve(sms.Text(id_, phone, body, reference), None if unknown else _CUT_OFF)
        while row := await _ask(self._context, _NEXT, *self._which, self._context.job.id, claim):
            await _to_its_end(self._send, sms.Text(**row))
            self._done += 1
            await self._context.progress(self._which[1], done=self._done)

    async def _send(self, text: sms.Text) -> None:
        try:
            await self._note(text, "sent", await self._provider.send(self._context, text))
        except sms.Refused as error:
            await self._note(text, "failed", error=str(error))
        except sms.NotNow as error:
            await self._note(text, "queued", error=str(error))
            raise Later(str(error), error.delay) from None
        except sms.InDoubt as error:
            if not await self._resolve(text, str(error)):
                # The rest waits: where the provider is ill, one text comes into doubt and not all.
                raise Later(f"one text is in doubt: {error}") from None

    async def _resolve(self, text: sms.Text, why: str | None) -> bool:
        """Ask for it by its reference; true when the provider knows what became of it. Without `why` it is unknown."""
        try:
            found = await self._provider.find(self._context, text)
        except sms.NotNow as error:
            if why is None:
                return False
            # It stays `sending`: whoever comes next asks again.
            raise Later(f"one text is in doubt: {why}; {error}", error.delay) from None
        except sms.Refused as error:
            await self._note(text, "failed", error=str(error))
            return True
        if found or why:
            await self._note(text, "sent" if found else "unknown", found, None if found else why)
        return found is not None

    async def _note(
        self, text: sms.Text, status: str, provider_id: str | None = None, error: str | None = None
    ) -> None:
        if status != "sent":
            self._context.log.warning("sms.not_sent", status=status, reference=text.reference, error=error)
        await _value(self._context, _NOTE, text.id, status, self._context.job.claim, provider_id, error)


async def _to_its_end(send: Callable[[sms.Text], Awaitable[None]], text: sms.Text) -> None:
    """Send it also when the job is interrupted meanwhile, as by a daemon that stops: else it were in doubt."""
    sending = asyncio.ensure_future(send(text))
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.wait({sending}, timeout=LAST_SECONDS)
        if sending.done() and not sending.cancelled():
            sending.exception()  # looked at; the interruption says enough
        raise


async def _over(context: Context, sync: UUID, outcome: Outcome) -> Outcome:
    """The outcome, unless the sync went on meanwhile and this job is what its new cycle was answered with."""
    until = await _value(context, _AGAIN, sync, context.job.job_type)
    return Snoozed(until=until) if until else outcome


def _nothing(now: Any) -> Outcome:
    return Snoozed(until=now["until"]) if now["action"] == "wait" else Skipped(now["note"])


def _sync(context: Context) -> UUID:
    payload = context.payload
    try:
        return UUID(payload["sync_id"])
    except (TypeError, KeyError, ValueError, AttributeError):
        raise InvalidJob("the payload has no sync_id that is a uuid") from None


def _provider(context: Context) -> sms.Provider:
    name = context.settings.get("sms")
    if name not in sms.PROVIDERS:
        raise InvalidJob(f"settings of {context.job.job_type}: sms must be one of {', '.join(sms.PROVIDERS)}")
    return sms.PROVIDERS[name]()


async def _ask(context: Context, question: str, *arguments: object) -> Any:
    async with context.connection() as connection:
        return await connection.fetchrow(question, *arguments)


async def _value(context: Context, question: str, *arguments: object) -> Any:
    async with context.connection() as connection:
        return await connection.fetchval(question, *arguments)
