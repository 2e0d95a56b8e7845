"""One answer for all who ask the same at once."""

import asyncio

import pytest

from worker.web.pages import shared


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
