"""A Debian that boots in a namespace of its own (systemd-nspawn), with a systemd and a Postgres of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.buildah import CACHE, SUITE, Ended, alone, lent, pip_settings
from tests.support import ROOT

TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "unshare")
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "ca-certificates", "postgresql", "stockfish")
TREE = CACHE / "machine"
CLONE = "/clone"  # a folder of the guest
# Its network is ours, so its Postgres has no port; its login has a password, as one must behind DynamicUser.
POSTGRES = "listen_addresses = ''\n"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Why no machine can be booted here."""
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"no {' and no '.join(absent)}"
    return "a machine of one's own needs root" if os.geteuid() else None


def provide_tree() -> None:
    """Its files, made once."""
    if (TREE / "made").exists():
        return
    shutil.rmtree(TREE, ignore_errors=True)
    made = subprocess.run(
        ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, TREE],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-2000:]
    (clusters,) = (TREE / "etc" / "postgresql").glob("*/main")
    (clusters / "conf.d" / "test.conf").write_text(POSTGRES)
    rules = clusters / "pg_hba.conf"
    rules.write_text(f"local all jobs scram-sha-256\n{rules.read_text()}")
    shutil.rmtree(TREE / "var" / "lib" / "apt" / "lists", ignore_errors=True)
    (TREE / "made").touch()


class Machine:
    """One that has booted."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def run(self, *command: str, check: bool = True) -> Ended:
        """As root, with next to no environment."""
        entered = ["nsenter", "--target", str(self._leader()), "--all", "--wd=/root", "env", "-i", f"PATH={PATH}"]
        ended = subprocess.run(
            [*entered, "HOME=/root", "LANG=C.UTF-8", *command], capture_output=True, text=True, timeout=300, check=False
        )
        if check and ended.returncode:
            said = "\n".join(each for each in ended.stderr.splitlines() if not each.startswith("WARNING"))
            raise AssertionError(f"{command} ended with {ended.returncode}:\n{ended.stdout}\n{said}")
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def script(self, text: str) -> str:
        """Lines of a shell, up to the first that fails."""
        return self.run("bash", "-euc", text).out

    def becomes(self, text: str, seconds: float = 40.0) -> None:
        """Wait until a line of a shell ends well."""
        end = time.monotonic() + seconds
        while (ended := self.run("bash", "-uc", text, check=False)).code:
            assert time.monotonic() < end, f"{text}: {ended}"
            time.sleep(0.1)

    def booted(self) -> None:
        """Wait for process 1, and then for what it starts."""
        end = time.monotonic() + 60
        while not self._children() or self.run("true", check=False).code:
            assert self._process.poll() is None, f"it ended with {self._process.returncode}"
            assert time.monotonic() < end
            time.sleep(0.1)
        self.becomes("systemctl is-system-running | grep -Eq 'running|degraded'", 60)

    def end(self) -> None:
        """As its power button does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def _leader(self) -> int:
        return self._children()[0]

    def _children(self) -> list[int]:
        pid = self._process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """A machine with a copy of this tree in it; what happens on it is forgotten."""
    with alone(), tempfile.TemporaryDirectory() as made:
        provide_tree()
        folder = Path(made)
        copied(folder / "clone")
        settings = pip_settings()
        lines = [f"{key} = {' '.join(value.split())}\n" for key, value in settings.items()]
        (folder / "pip.conf").write_text(f"[global]\n{''.join(lines)}")
        binds = [f"--bind={folder / 'clone'}:{CLONE}", f"--bind-ro={folder / 'pip.conf'}:/etc/pip.conf"]
        binds += [f"--bind-ro={path.resolve()}:{path}" for path in lent(settings)]
        with (folder / "console").open("wb") as console:
            process = subprocess.Popen(
                ["systemd-nspawn", "--register=no", "--keep-unit", "--volatile=overlay", "--boot",
                 "--machine=job-queue-test", f"--directory={TREE}", *binds],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        booting = Machine(process)
        try:
            booting.booted()
            yield booting
        finally:
            booting.end()


def copied(folder: Path) -> None:
    """What a clone of this tree would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in listed.splitlines():
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
