"""What verbs write: text for people, one JSON value for programs. Nothing from the database reaches a terminal raw."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDE = 200  # columns where no terminal says how many there are
GAP = 2  # columns between two columns of a table
PIECE = 24  # columns that are enough of a long text


def put(text: str) -> None:
    """A line, or several, for people."""
    from worker.log import safe

    print("\n".join(safe(line) for line in text.splitlines()), flush=True)


def put_json(value: Any) -> None:
    """The one value of a verb called with --json."""
    import orjson

    from worker import exact

    sys.stdout.write(exact.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")
    sys.stdout.flush()


def console() -> "Console":
    """Standard output, as wide as it is; wide enough for any table where it is no terminal."""
    from rich.console import Console

    class Paper(Console):
        def on_broken_pipe(self) -> None:
            """Tell it as `print` does; rich itself would end the process with the code that means no."""
            raise BrokenPipeError

    return Paper(width=None if sys.stdout.isatty() else WIDE, highlight=False, soft_wrap=False)


@contextmanager
def advancing(deed: str, total: int) -> "Iterator[Callable[[int], None]]":
    """A progress bar on standard error, for long work on a terminal; what it yields is called with what was done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(deed, total=total)
        yield lambda done: bar.update(task, advance=done)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], width: int = WIDE, spare: Sequence[str] = ()
) -> "Table":
    """A table whose cells are one line each; the last column gets what room is left.

    Args:
        columns: their names; one that begins with a space is for numbers.
        width: of the paper.
        spare: what is left out on narrow paper, in this order, until the rest fits.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[shown(value) for value in row] for row in rows]
    names = [name.strip() for name in columns]
    wide = [max(map(cell_len, (name, *(row[at] for row in cells)))) for at, name in enumerate(names)]
    kept = _fitting(names, wide, width, spare)
    made = Table(box=None, pad_edge=False, header_style="bold")
    for at in kept:
        justify: Literal["left", "right"] = "right" if columns[at].startswith(" ") else "left"
        made.add_column(names[at], justify=justify, overflow="ellipsis", no_wrap=True, max_width=wide[at])
    room = width - sum(wide[at] + GAP for at in kept[:-1])
    made.columns[-1].max_width = max(room, min(wide[kept[-1]], PIECE))
    for row in cells:
        made.add_row(*(Text(row[at]) for at in kept))
    return made


def _fitting(names: Sequence[str], wide: Sequence[int], width: int, spare: Sequence[str]) -> list[int]:
    """The columns, by number, that fit; of the last one a piece is enough."""
    kept = list(range(len(names)))
    for name in spare:
        *others, last = kept
        if sum(wide[at] + GAP for at in others) + min(wide[last], PIECE) <= width:
            break
        kept.remove(names.index(name))
    return kept


def shown(value: object) -> str:
    """One value in a table: nothing for nothing, seconds readable, text without what a terminal would obey."""
    from worker.log import safe

    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return lasting(value)
    return safe(str(value)).replace("\n", " ")


def lasting(seconds: float) -> str:
    """Seconds for eyes: 12 ms, 3.4 s, 5.0 min, 2.1 h, 3.0 d."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
