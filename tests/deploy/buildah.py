"""Building and starting the image without a container engine's daemon: buildah, chroot isolation, a storage of its own.

No registry is asked. In place of the base that the Dockerfile pins stands one made by debootstrap and kept between
runs: the distribution's own Python instead of a newer one.
"""

import ast
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import ROOT

CACHE = Path(os.environ.get("WORKER_IMAGE_CACHE", "/var/cache/job-queue-worker-image"))
TAG = "job-queue-worker:test"
BASE = "job-queue-worker-base:bookworm"
SUITE = "bookworm"
TOOLS = ("buildah", "debootstrap", "unshare")
PIP_KEYS = ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout", "cert", "client-cert")

Mounts = Mapping[Path, str]


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def missing() -> str | None:
    """Why nothing can be built here."""
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"no {' and no '.join(absent)}"
    return "buildah's chroot isolation here needs root" if os.geteuid() else None


def buildah(*arguments: str, check: bool = True) -> Ended:
    """One call, to its end."""
    ended = subprocess.run(_command(*arguments), env=_environment(), capture_output=True, text=True, check=False)
    if check and ended.returncode:
        raise AssertionError(f"buildah {arguments[0]} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One test run at a time uses the storage."""
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        buildah("rm", "--all")  # of a run that was killed
        yield


def provide_base() -> float:
    """The stand-in, made once; how long that took."""
    began = time.monotonic()
    if buildah("inspect", "--type", "image", BASE, check=False).code:
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            packages = "python3,python3-venv"
            made = subprocess.run(
                # in a mount namespace of its own: killed half-way, it leaves no /proc mounted in what is then removed
                ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={packages}", SUITE, folder],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert made.returncode == 0, made.stdout[-2000:]
            for waste in ("var/cache/apt/archives", "var/lib/apt/lists"):
                shutil.rmtree(Path(folder, waste), ignore_errors=True)
            container = buildah("from", "scratch").out.strip()
            buildah("add", "-q", container, folder, "/")
            buildah("commit", "-q", "--rm", container, BASE)
    return time.monotonic() - began


def build() -> float:
    """The image from the Dockerfile; how long that took. This machine's way to an index is lent to the build only."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "pip.conf")
        settings = pip_settings()
        secret.write_text("[global]\n" + "".join(f"{k} = {_indented(v)}\n" for k, v in settings.items()))
        mounts = [f"--volume={path.resolve()}:{path}:ro" for path in lent(settings)]
        buildah("bud", "--pull-never", "--format=docker", f"--build-arg=BASE={BASE}", f"--secret=id=pip,src={secret}",
                *mounts, f"--tag={TAG}", str(ROOT))  # fmt: skip
    return time.monotonic() - began


def pip_settings() -> dict[str, str]:
    """How this machine's pip reaches an index."""
    python = getattr(sys, "_base_executable", sys.executable)
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    found: dict[str, str] = {}
    for line in listed.splitlines():  # the environment's own come first, and win
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in PIP_KEYS:
            found.setdefault(name, str(ast.literal_eval(value)))
    return found


def lent(settings: Mapping[str, str]) -> list[Path]:
    """Files and folders that settings speak of; of a local index the folder around it, as its pages link to files."""
    found = set()
    for key, value in settings.items():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                found.add(path.parent if key.endswith("index-url") and len(path.parts) > 2 else path)
    return sorted(found)


def inspected(name: str = TAG) -> dict[str, Any]:
    """What an image says about itself."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name).out)
    config: dict[str, Any] = found["Docker"]["config"]
    return config


def size(name: str) -> str:
    """As buildah tells it."""
    return buildah("images", "--format", "{{.Size}}", name).out.strip()


@contextlib.contextmanager
def container(image: str = TAG) -> Iterator[str]:
    """A container of an image; gone afterwards."""
    name = buildah("from", "--pull-never", image).out.strip()
    try:
        yield name
    finally:
        buildah("rm", name)


@contextlib.contextmanager
def tree(name: str) -> Iterator[Path]:
    """A container's files."""
    path = Path(buildah("mount", name).out.strip())
    try:
        yield path
    finally:
        buildah("umount", name)


# A root that nobody writes to, no capability to gain or to keep, process 1 of its own namespace: as `docker run
# --read-only --cap-drop ALL --security-opt no-new-privileges` has it.
_SEAL = """
    set -e; root=$0 file=$1; shift
    mount --bind "$root" "$root"; mount -t proc proc "$root/proc"; mount --bind /dev "$root/dev"
    mount -t tmpfs none "$root/app"; touch "$root/app/worker.toml"
    mount --bind "$file" "$root/app/worker.toml"; mount -o remount,bind,ro "$root/app/worker.toml"
    mount -o remount,ro "$root/app"; mount -o remount,bind,ro "$root"
    exec chroot "$root" env -C /app setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --inh-caps=-all \\
      --bounding-set=-all -- "$@"
"""


def inside(name: str, *command: str, mounts: Mounts, environment: Mapping[str, str]) -> list[str]:
    """What runs a command in a container, as the image's own user."""
    given = [f"--env={key}={value}" for key, value in environment.items()]
    volumes = [f"--volume={path}:{at}:ro" for path, at in mounts.items()]
    return _command("run", *given, *volumes, name, "--", *command)


def sealed(root: Path, *command: str, config: Path, environment: Mapping[str, str]) -> list[str]:
    """What runs a command in a container's tree with everything taken away that it does not need."""
    given = [f"{key}={value}" for key, value in environment.items()]
    unshared = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--", "env", "-i", *given]
    return [*unshared, "sh", "-c", _SEAL, str(root), str(config), *command]


class Running:
    """A command that runs; what it says goes to a file."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command, env=_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )  # fmt: skip

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str, seconds: float = 40) -> None:
        """Wait for a text."""
        end = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def inner(self) -> int:
        """The pid of the command itself: the last descendant."""
        pid = self.process.pid
        while children := [
            child for listed in Path(f"/proc/{pid}/task").glob("*/children") for child in listed.read_text().split()
        ]:
            pid = int(children[0])
        return pid

    def first(self) -> int:
        """The pid, seen from here, of process 1 of a sealed one."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def status(self, key: str, pid: int | None = None) -> str:
        """What the kernel says of the command, or of another process, by a key of /proc/PID/status."""
        about = Path(f"/proc/{pid or self.inner()}/status").read_text()
        return next(line for line in about.splitlines() if line.startswith(f"{key}:")).partition(":")[2].strip()

    def writes(self) -> bool:
        """Whether its root may be written to."""
        return not os.statvfs(f"/proc/{self.inner()}/root").f_flag & os.ST_RDONLY

    def ends(self, seconds: float = 40) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        """Whatever still runs."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(self.inner(), signal.SIGKILL)
            self.process.kill()
            self.process.wait(10)


def _command(*arguments: str) -> list[str]:
    return ["buildah", "--root", str(CACHE / "storage"), "--runroot", "/run/job-queue-worker-image", *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}


def _indented(value: str) -> str:
    return "\n    ".join(value.split())
