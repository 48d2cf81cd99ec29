"""The one SQLite build that opens shards for writing, and how shards are opened.

`sqlite_dbpage` must be compiled in, since standbys apply pages through it; of the builds on the package
index only `sqlean.py` has it. Everything in the daemon's process uses this build: two SQLite libraries in
one process would drop each other's POSIX locks.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlean import dbapi2

PAGE_SIZE = 4096
STATEMENT_CACHE = 256
WRITING_CACHE_KIB = 2048
"""SQLite's page cache of each shard that is written: it multiplies by the shards, and 8 MiB was not faster."""

WAL_KEPT_BYTES = 8 << 20
"""A WAL that begins anew keeps its blocks, which spares their allocation; what a long reader made it grow goes."""

Connection = sqlite3.Connection
"""What every function here returns: sqlean's connection has the interface of the standard library's."""

DatabaseError: type[sqlite3.Error] = dbapi2.Error
"""The root of what this build raises; it is not the standard library's `sqlite3.Error`."""

APPLIED_SCHEMA = "shard"
"""The name under which an applying connection attaches its shard."""


class UnsuitableBuild(RuntimeError):
    """The SQLite library that was loaded lacks what replication needs."""


def check_build() -> str:
    """Return the version of the SQLite library after checking that it can replicate.

    Raises:
        UnsuitableBuild: `sqlite_dbpage` is missing, or the library is not safe to use from several threads.
    """
    connection = dbapi2.connect(":memory:")
    try:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    finally:
        connection.close()
    missing = {"ENABLE_DBPAGE_VTAB", "THREADSAFE=1"} - options
    if missing:
        raise UnsuitableBuild(
            f"the SQLite library {dbapi2.sqlite_version} was built without {', '.join(sorted(missing))}; "
            "install the version of sqlean.py that requirements.lock names"
        )
    return str(dbapi2.sqlite_version)


def open_for_writing(path: Path) -> Connection:
    """Open (or create) a shard for its one writing thread: WAL mode, no automatic checkpoints."""
    connection: Connection = dbapi2.connect(
        str(path), isolation_level=None, cached_statements=STATEMENT_CACHE, check_same_thread=False
    )
    connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA journal_size_limit={WAL_KEPT_BYTES}")
    # The replication log makes a write durable; a shard that loses its last transactions is replayed from it.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA cache_size=-{WRITING_CACHE_KIB}")
    return connection


def open_for_checkpoints(path: Path) -> Connection:
    """Open a shard that another thread writes, for nothing but checkpoints.

    Raises:
        DatabaseError: There is no such file.
    """
    connection: Connection = dbapi2.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)
    return connection


def open_for_reading(path: Path) -> Connection:
    """Open a shard read-only; it can neither write nor checkpoint.

    Raises:
        DatabaseError: There is no such file.
    """
    connection: Connection = dbapi2.connect(
        f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only=ON")
    return connection


def open_for_applying(path: Path) -> Connection:
    """Open a connection that writes a shard's pages: `:memory:` is its main database, the shard is attached.

    Its own view of the shard's schema goes stale as pages change under it; use it for nothing but pages.
    """
    connection: Connection = dbapi2.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute(f"ATTACH DATABASE ? AS {APPLIED_SCHEMA}", (str(path),))
    connection.execute(f"PRAGMA {APPLIED_SCHEMA}.page_size={PAGE_SIZE}")
    connection.execute(f"PRAGMA {APPLIED_SCHEMA}.journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(f"PRAGMA {APPLIED_SCHEMA}.journal_size_limit={WAL_KEPT_BYTES}")
    connection.execute(f"PRAGMA {APPLIED_SCHEMA}.synchronous=NORMAL")
    connection.execute("PRAGMA writable_schema=ON")
    return connection
