"""What a query from outside may use: the limits, and how a worker process lays them upon itself."""

from __future__ import annotations

import json
import math
import resource
from dataclasses import asdict, dataclass

MAX_SQL_BYTES = 100_000
MAX_PARAMETERS = 999
MAX_PARAMETERS_BYTES = 1 << 20
DEFAULT_ROWS = 1000
DEFAULT_SECONDS = 5.0
MAX_FILE_BYTES = 64 << 20
"""No query writes a file; SQLite may have to map a shard's shared memory, which is one."""


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What one query may use at most.

    Attributes:
        seconds: How long it may run, and wait for a worker; a query that asks for no time gets 5 s or this.
        rows: Rows that it may ask for; a query that asks for no number gets 1,000 or this.
        result_bytes: Of its rows as JSON; past it the result is cut.
        memory_bytes: Of SQLite's own memory, temporary tables included.
    """

    seconds: float = 30.0
    rows: int = 100_000
    result_bytes: int = 8 << 20
    memory_bytes: int = 256 << 20

    @property
    def default_seconds(self) -> float:
        """How long a query may run that asks for no time."""
        return min(DEFAULT_SECONDS, self.seconds)

    @property
    def default_rows(self) -> int:
        """Where the result of a query is cut that asks for no number of rows."""
        return min(DEFAULT_ROWS, self.rows)

    def to_argument(self) -> str:
        """As a worker process is told them on its command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> SqlLimits:
        """What `to_argument` made."""
        return cls(**json.loads(argument))


def limit_process(*, address_space_bytes: int, heap_bytes: int, open_files: int) -> None:
    """Bound this process's memory and files for good; nothing that it starts can have more rights.

    Args:
        address_space_bytes: All that it may map, files included.
        heap_bytes: What it may hold of its own, whoever asks for it: the engine, or Python for the result.
        open_files: How many files it may hold open.
    """
    _lower(resource.RLIMIT_AS, address_space_bytes)
    _lower(resource.RLIMIT_DATA, heap_bytes)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    _lower(resource.RLIMIT_NOFILE, open_files)
    _lower(resource.RLIMIT_CORE, 0)


def limit_processor_time(seconds: float) -> None:
    """Let the kernel end this process once it has used `seconds` (and one more) of a processor from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))
