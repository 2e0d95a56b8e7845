"""`python -m worker.embedded [COMMAND…]`: a command, or a shell, with a private Postgres at hand.

DATABASE_URL leads to it and psql is on the PATH. It stops when the command ends; what is in it stays for the next time.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from worker.embedded import default_data_dir, start
from worker.errors import EmbeddedError


def main(command: Sequence[str]) -> int:
    """Run the command beside the server; answers with its exit code."""
    try:
        server = start(default_data_dir(), die_with_parent=True, progress=say)
    except EmbeddedError as error:
        say(f"worker: {error}")
        return 2
    paths = (os.environ.get("PATH", ""), str(server.prefix / "bin"))  # a psql of one's own comes first
    given = {**os.environ, "DATABASE_URL": server.dsn(), "DATABASE_URL_FILE": "", "PATH": os.pathsep.join(paths)}
    say(f"PostgreSQL {server.version} runs in {server.data}, for trying things out: no passwords, no TLS, no TCP.")
    say("DATABASE_URL leads to it. It ends with this shell, its data stay until the folder is removed.")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's
    try:
        return subprocess.run(
            command or [os.environ.get("SHELL") or "/bin/sh"], env=given, check=False,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ).returncode  # fmt: skip
    except OSError as error:
        say(f"worker: {error}")
        return 2
    finally:
        signal.signal(signal.SIGINT, before)
        if not server.attached:
            server.stop()


def say(line: str) -> None:
    """To standard error: standard output is the command's."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
