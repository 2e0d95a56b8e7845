"""The command as process 1 of a PID namespace."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import die_with_parent
from tests.support import ROOT
from worker.cli.pid_one import step_aside

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
FIRST = "from worker.cli.pid_one import step_aside\nstep_aside()\nimport os, signal, time\n"
SECONDS = 20.0


def allowed() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not allowed(), reason="no right to make a PID namespace")


def start(program: str) -> "subprocess.Popen[str]":
    command = [*UNSHARE, sys.executable, "-c", FIRST + program]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)  # noqa: PLW1509


def ends(process: "subprocess.Popen[str]") -> tuple[int, str]:
    out, _ = process.communicate(timeout=SECONDS)
    return process.returncode, out.strip()


def first_of(process: "subprocess.Popen[str]") -> int:
    """Process 1 as it is called out here."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii"))


@pytest.mark.parametrize(
    ("program", "code"),
    [("os._exit(7)", 7), ("pass", 0), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL)],
    ids=["code", "well", "killed"],
)
def test_it_ends_as_its_child_ends(program: str, code: int) -> None:
    assert ends(start(program))[0] == code


def test_the_command_is_not_process_one() -> None:
    assert ends(start("print(os.getpid() > 1, os.getppid())")) == (0, "True 1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number: signal.Signals) -> None:
    process = start(
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{number:d}])\n"
        f"print('blocked', flush=True)\nprint(+signal.sigwait([{number:d}]))"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "blocked\n"
    os.kill(first_of(process), number)
    assert ends(process) == (0, str(int(number)))


def test_orphans_are_reaped_and_own_children_are_left_alone() -> None:
    program = """
import subprocess
subprocess.run(["sh", "-c", "(sleep 0.05) & (sleep 0.05) & exit 0"])
own = subprocess.Popen(["sh", "-c", "exit 5"])
end = time.monotonic() + 10
while len([n for n in os.listdir("/proc") if n.isdigit()]) > 3 and time.monotonic() < end:
    time.sleep(0.01)
print(len([n for n in os.listdir("/proc") if n.isdigit()]), own.wait())
"""
    assert ends(start(program)) == (
        0,
        "3 5",
    )  # process 1, its child, and a child that nobody has waited for


def test_any_other_process_goes_on_as_it_is() -> None:
    before = os.getpid()
    step_aside()
    assert os.getpid() == before


def test_the_children_of_the_pool_are_not_its_to_reap() -> None:
    program = (
        "import asyncio\nfrom tests.sample_calls import die, mine\nfrom worker import ChildDied\n"
        "from worker.children import Children\nfrom worker.metrics import Metrics\n"
        "async def main():\n"
        "    pool = Children(2, Metrics())\n"
        "    answers = await asyncio.gather(*(pool.call(mine, n) for n in range(20)))\n"
        "    print([given for _, given in answers] == [*range(20)])\n"
        "    try:\n        await pool.call(die, 'exit')\n"
        "    except ChildDied as error:\n        print('exit code 3' in str(error))\n"
        "    await pool.close()\n"
        "asyncio.run(main())"
    )
    code, said = ends(start(program))
    assert (code, [line for line in said.splitlines() if "child.died" not in line]) == (0, ["True", "True"])
