"""One answer for all who ask the same at once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from worker.web import shared
from worker.web.reply import reply


class Asked:
    """A question that is answered when it is told to be."""

    def __init__(self) -> None:
        self.times = 0
        self.answered = asyncio.Event()

    async def __call__(self) -> int:
        self.times += 1
        await self.answered.wait()
        return self.times


async def test_a_crowd_is_one_question_and_who_leaves_takes_it_from_nobody() -> None:
    asked, one = Asked(), shared.Shared(lambda: 1)
    crowd = [asyncio.ensure_future(one.get(("q",), asked)) for _ in range(10)]
    await asyncio.sleep(0)
    crowd.pop(0).cancel()
    asked.answered.set()
    assert await asyncio.gather(*crowd) == [1] * 9


async def test_after_a_change_nobody_gets_what_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SHARE", 1e9)
    version, asked = [1], Asked()
    asked.answered.set()
    one = shared.Shared(lambda: version[0])
    assert [await one.get(("q",), asked), await one.get(("q",), asked)] == [1, 1]
    version[0] = 2
    assert await one.get(("q",), asked) == 2


async def test_an_error_is_not_kept_and_old_questions_are_forgotten() -> None:
    one = shared.Shared(lambda: 1)

    async def fails() -> None:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await one.get(("q",), fails)
    asked = Asked()
    asked.answered.set()
    for n in range(3 * shared.MOST):
        await one.get((n,), asked)
    assert len(one._answers) <= shared.MOST


async def test_what_is_kept_for_a_time_is_kept_through_changes() -> None:
    version, asked = [1], Asked()
    asked.answered.set()
    one = shared.Shared(lambda: version[0])
    assert await one.get(("q",), asked, 60.0) == 1
    version[0] = 2
    assert await one.get(("q",), asked, 60.0) == 1


async def test_what_one_reader_does_to_an_answer_nobody_else_sees() -> None:
    async def ask() -> list[dict[str, Any]]:
        return [{"job_type": "mail", "spans": [{"n": 1}]}]

    one = shared.Shared(lambda: 1)
    first = await one.get(("q",), ask, 60.0)
    changes: tuple[Callable[[], object], ...] = (
        lambda: first.append(1),
        lambda: first[0].pop("job_type"),
        lambda: first[0].update(a=1),
        lambda: first[0]["spans"].append(1),
        lambda: first[0]["spans"][0].update(n=2),
    )
    for change in changes:
        with pytest.raises(AttributeError):
            change()
    assert await one.get(("q",), ask, 60.0) is first
    assert reply(first).body == b'[{"job_type":"mail","spans":[{"n":1}]}]'


async def test_what_took_long_is_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SHARE", 1e9)
    asked, one = Asked(), shared.Shared(lambda: 1)
    asked.answered.set()
    for _ in range(3):
        assert await one.get(("q",), asked, 1e-9) == 1
