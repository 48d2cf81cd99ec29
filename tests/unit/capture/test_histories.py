"""Any history that SQLite can make, captured transaction by transaction, rebuilds the database."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_core.database.build import Connection, open_for_reading
from primary.capture import WalCapture
from tests.unit.capture.harness import Shard, apply, crash, required, wal_of

blob_sizes = st.sampled_from([10, 300, 3000, 9000, 60000])
STATEMENTS = st.one_of(
    st.builds("INSERT INTO t (b) VALUES (randomblob({}))".format, blob_sizes),
    st.builds("INSERT INTO t (b) SELECT randomblob({}) FROM u LIMIT 40".format, st.sampled_from([50, 2000])),
    st.builds("UPDATE t SET b = randomblob({}) WHERE a % 3 = 1".format, st.sampled_from([10, 400, 3000])),
    st.builds("DELETE FROM t WHERE a % {} = 0".format, st.integers(1, 5)),
    st.builds("CREATE TABLE IF NOT EXISTS v{} (c, d UNIQUE)".format, st.integers(0, 3)),
    st.builds("DROP TABLE IF EXISTS v{}".format, st.integers(0, 3)),
    st.builds("CREATE INDEX IF NOT EXISTS i{0} ON t (length(b), a % {0})".format, st.integers(2, 4)),
    st.builds("DROP INDEX IF EXISTS i{}".format, st.integers(2, 4)),
    st.just("SAVEPOINT s"),
    st.just("ROLLBACK TO s"),
)


class Histories(RuleBasedStateMachine):
    """Any history that SQLite can make, captured transaction by transaction, rebuilds its pages."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.generation = 0
        self.readers: list[Connection] = []
        self.shard = Shard(Path(self.directory.name) / "shard.db")

    @initialize(cache_pages=st.sampled_from([2, 10, 2000]))
    def begin(self, cache_pages: int) -> None:
        self.cache_pages = cache_pages
        self.limit_cache()
        self.shard.execute(
            "CREATE TABLE t (a INTEGER PRIMARY KEY, b)",
            "CREATE TABLE u AS WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 40)"
            " SELECT i FROM n",
        )

    def limit_cache(self) -> None:
        self.shard.connection.execute(f"PRAGMA cache_size={self.cache_pages}")

    def run(self, statements: list[str], end: str) -> None:
        self.shard.connection.execute("BEGIN IMMEDIATE")
        has_savepoint = False
        for statement in statements:
            if statement != "ROLLBACK TO s" or has_savepoint:
                self.shard.connection.execute(statement)
            has_savepoint = has_savepoint or statement == "SAVEPOINT s"
        self.shard.connection.execute(end)

    @rule(statements=st.lists(STATEMENTS, min_size=1, max_size=6))
    def commit(self, statements: list[str]) -> None:
        self.run(statements, "COMMIT")
        self.shard.follow()

    @rule(statements=st.lists(STATEMENTS, min_size=1, max_size=6))
    def roll_back(self, statements: list[str]) -> None:
        self.run(statements, "ROLLBACK")

    @rule(statements=st.lists(STATEMENTS, min_size=1, max_size=6))
    def roll_back_and_commit_nothing(self, statements: list[str]) -> None:
        self.run(statements, "ROLLBACK")
        self.run(["SELECT 1"], "COMMIT")
        assert self.shard.follow() is None

    @rule()
    def vacuum(self) -> None:
        self.shard.connection.execute("VACUUM")
        self.shard.follow()

    @rule(mode=st.sampled_from(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]))
    def checkpoint(self, mode: str) -> None:
        if self.readers and mode != "PASSIVE":
            self.shard.connection.execute("PRAGMA busy_timeout=0")
        self.shard.checkpoint(mode)

    @precondition(lambda self: len(self.readers) < 2)
    @rule()
    def open_a_reader(self) -> None:
        reader = open_for_reading(self.shard.path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t").fetchone()
        self.readers.append(reader)

    @precondition(lambda self: self.readers)
    @rule()
    def close_a_reader(self) -> None:
        self.readers.pop(0).close()

    @rule()
    def capture_anew_beside_the_open_connection(self) -> None:
        self.shard.capture.close()
        self.shard.capture = WalCapture(wal_of(self.shard.path), in_use=True)
        self.run(["INSERT INTO u VALUES (0)"], "COMMIT")
        required(self.shard.follow())

    @rule()
    def stop_and_start(self) -> None:
        self.shard.close()
        self.reopen(self.shard.path)

    @rule(statements=st.lists(STATEMENTS, min_size=1, max_size=6), end=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def crash_before_the_capture(self, statements: list[str], end: str) -> None:
        before = dict(self.shard.pages)
        self.run([*statements, "INSERT INTO u VALUES (0)"], end)
        self.generation += 1
        path = crash(self.shard, Path(self.directory.name) / str(self.generation))
        while self.readers:
            self.readers.pop().close()
        self.shard.close()
        self.reopen(path)
        if end == "COMMIT":
            apply(required(self.shard.capture.last_transaction()), before)
        assert before == self.shard.pages

    def reopen(self, path: Path) -> None:
        self.shard = Shard(path)
        self.limit_cache()

    @invariant()
    def captured_transactions_make_the_database(self) -> None:
        self.shard.assert_whole()

    def teardown(self) -> None:
        for reader in self.readers:
            reader.close()
        self.shard.close()
        self.directory.cleanup()


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=25)
