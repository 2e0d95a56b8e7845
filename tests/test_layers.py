"""A module imports only those above it in this list; who wants otherwise changes the list, and says why."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

ORDER = """
    errors exact job retry outcome graph course cron config spans counts series queue_gauges metrics log credentials
    reset way connection door database waiting edition migrating migrations verdict ongoing places job_queue permits
    timetable timeline step kept_step addresses outbound breaker child packing children trace_context context
    handlers traces settler report otel tracing alarm attempt slots solitude runners executor listener bell onset
    lane poller judge beat fence lease upkeep schedule results prune tally pulse health drain stop notify watchdog
    parts life service tallied exporter guests desk embedded testing check web jobs demo cli
""".split()  # noqa: SIM905, a list of words reads best as words
EXEMPT = {"__init__", "__main__"}
PACKAGE = ROOT / "worker"


def room_of(path: Path) -> str:
    """The top-level module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every name a file imports, also inside its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def fault(room: str, name: str) -> str | None:
    """What is wrong with this room's importing that name, if anything."""
    first, _, rest = name.partition(".")
    other = rest.partition(".")[0]
    if first != "worker" or other == room:
        return None
    if room == "jobs":
        return f"jobs imports {name}, but may import the door only" if other in ORDER else None
    if other not in ORDER:
        return f"{room} imports {name}, which is no module of the order"
    return f"{room} imports {other}, which is not above it" if ORDER.index(other) > ORDER.index(room) else None


def faults() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        room = room_of(path)
        if room not in EXEMPT and room in ORDER:
            names = imported(ast.parse(path.read_text(encoding="utf-8")))
            yield from (f"{path.relative_to(ROOT)}: {said}" for name in names if (said := fault(room, name)))


def test_imports_go_upwards_only() -> None:
    assert list(faults()) == []


def test_every_module_has_its_place() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - EXEMPT
    assert rooms - set(ORDER) == set()


def test_the_web_side_is_given_to_the_service_and_knows_nothing_of_it() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (PACKAGE / "web").rglob("*.py")]
    rooms = {name.split(".")[1] for tree in trees for name in imported(tree) if name.startswith("worker.")}
    # The queue it knows by what people may ask of it, over connections of its own (decision 0025).
    # `course` is pure: how steps ran, for whoever draws them.
    assert rooms <= {"web", "desk", "course", "exact", "metrics", "config", "log", "errors"}


def test_the_check_sees_a_fault() -> None:
    nested = ast.parse(
        "def f():\n    from worker.cli import main\n    import worker.web.app\n    from worker import Job"
    )
    assert [fault("job", name) is not None for name in imported(nested)] == [True, True, True]
    assert fault("jobs", "worker.Job") is None
    assert fault("jobs", "worker.job_queue.JobQueue") is not None
    assert fault("cli", "worker.web.app") is None
    assert fault("config", "worker.config.fields") is None
