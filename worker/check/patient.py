"""What every subject is given to look at."""

from dataclasses import dataclass

from worker.config import Config
from worker.connection import Connection


@dataclass(frozen=True, slots=True)
class Patient:
    """A configuration and the database it names.

    Attributes:
        connection: to `url`.
        url: of the control connections.
        direct: of beat, listener and steps; the same as `url` unless database.direct_url is set.
    """

    config: Config
    connection: Connection
    url: str
    direct: str
