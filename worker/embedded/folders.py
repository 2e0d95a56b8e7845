"""Where a private server keeps what is its own."""

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

from worker.embedded.binaries import SHARED, Account, shared_folder
from worker.errors import EmbeddedError

SOCKET_BYTES = 103  # of a whole address on macOS; Linux takes 107


def default_data_dir() -> Path:
    """This user's folder for the demo's server; root's is where `nobody` can reach it."""
    if os.geteuid() == 0:
        return SHARED / "postgres"
    shared = Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"))  # noqa: PTH111, may lack
    nearest = next(folder for folder in (shared, *shared.absolute().parents) if folder.exists())
    if os.access(nearest, os.W_OK):
        return shared / "job-queue-worker" / "postgres"
    return Path(tempfile.gettempdir()) / f"job-queue-worker-{os.geteuid()}" / "postgres"


def own(folder: Path, user: Account) -> None:
    """Make the folder the account's own if it is not there; nobody else's permissions are touched."""
    if not folder.exists():
        if folder.is_relative_to(SHARED):
            shared_folder()
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make(folder, user)
    if folder.stat().st_uid != user.uid:
        raise EmbeddedError(f"{folder} belongs to another user than the server's (uid {user.uid}): name a new folder")
    if not user.may_enter(folder):
        raise EmbeddedError(
            f"root's servers run as `nobody`, who cannot enter {folder}: "
            f"name a folder outside private homes, such as {default_data_dir()}"
        )


def socket_folder(data: Path, port: int, user: Account) -> Path:
    """The data folder itself, or a short private one when its path is too much for a socket's address."""
    address = f"{data}/.s.PGSQL.{port}"
    if len(os.fsencode(address)) <= SOCKET_BYTES and re.fullmatch(r"[\w./-]+", address, re.ASCII):
        return data
    short = Path("/tmp") / f"jqw-{user.uid}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    if not short.exists():
        _make(short, user)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user.uid or stat.S_IMODE(found.st_mode) != 0o700:
        raise EmbeddedError(f"{short} is not a private folder of uid {user.uid}; remove it")
    return short


def _make(folder: Path, user: Account) -> None:
    """Finished beside its place, then renamed, so that a second starter never sees it half-made."""
    made = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    if user.changed:
        os.chown(made, user.uid, user.gid)
    try:
        made.rename(folder)
    except OSError:  # the other starter was first
        with contextlib.suppress(FileNotFoundError):
            made.rmdir()
