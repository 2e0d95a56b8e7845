"""How a demo tells its story: live on a terminal, in plain lines elsewhere, on standard error where output is JSON."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from worker.log import safe

if TYPE_CHECKING:
    from rich.text import Text


class Teller:
    """Writes the story.

    Args:
        quiet: standard output belongs to somebody else.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._out: TextIO = sys.stderr if quiet else sys.stdout
        self.live = self._out.isatty()
        self.width = shutil.get_terminal_size().columns if self.live else 100
        self._chapters = 0

    def title(self, text: str) -> None:
        """A new chapter; it has a number, by which others refer to it."""
        self._chapters += 1
        self.line("")
        self.line(f"── {self._chapters}. {text} ──")

    def line(self, text: str) -> None:
        """One line."""
        print(safe(text), file=self._out, flush=True)

    def lines(self, texts: Sequence[str]) -> None:
        """Several lines."""
        for text in texts:
            self.line(text)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """A bar on a terminal, a line for each quarter elsewhere; gives what is told (done, total)."""
        if not self.live:
            yield self._quarters(text)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=Console(file=self._out)) as bar:
            task = bar.add_task(text, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def picture(self) -> Iterator[Callable[[Sequence[str]], None]]:
        """A picture that is drawn over itself on a terminal; elsewhere only its last state is written."""
        last: list[str] = []
        if not self.live:
            yield lambda texts: last.__setitem__(slice(None), texts)
            self.lines(last)
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(file=self._out), auto_refresh=False) as live:
            yield lambda texts: live.update(_picture(texts), refresh=True)

    def _quarters(self, text: str) -> Callable[[int, int], None]:
        told = 0

        def tell(done: int, total: int) -> None:
            nonlocal told
            quarter = 4 * done // total
            if quarter > told:
                told = quarter
                self.line(f"{text}: {done} of {total}")

        return tell


def _picture(texts: Sequence[str]) -> "Text":
    from rich.text import Text

    return Text("\n".join(map(safe, texts)), no_wrap=True, overflow="ellipsis")
