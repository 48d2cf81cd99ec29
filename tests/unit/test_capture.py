"""Capture against real SQLite: what it reads, transaction by transaction, must rebuild the database."""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_core.database.build import Connection, open_for_reading, open_for_writing
from agent_core.database.wal import FRAME_HEADER_SIZE, FRAME_SIZE, HEADER_SIZE
from agent_core.errors import ShardDamaged
from primary.capture import FIRST_READ, FURTHER_READ, CapturedTransaction, WalCapture


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def pages_of(path: Path) -> dict[int, bytes]:
    connection = open_for_reading(path)
    try:
        return dict(connection.execute("SELECT pgno, data FROM sqlite_dbpage"))
    finally:
        connection.close()


def apply(transaction: CapturedTransaction, pages: dict[int, bytes]) -> None:
    """What a standby does with a transaction: the last image of a page wins, the rest is cut off."""
    assert len(transaction.frames) == transaction.frame_count * FRAME_SIZE
    for offset in range(0, len(transaction.frames), FRAME_SIZE):
        (page_number,) = struct.unpack_from(">I", transaction.frames, offset)
        pages[page_number] = transaction.frames[offset + FRAME_HEADER_SIZE : offset + FRAME_SIZE]
    for page_number in [number for number in pages if number > transaction.page_count]:
        del pages[page_number]


class Shard:
    """A shard, its capture, and the pages that captured transactions make."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = open_for_writing(path)
        self.capture = WalCapture(wal_of(path))
        self.pages = pages_of(path)

    def execute(self, *statements: str) -> CapturedTransaction | None:
        """Run statements as one transaction and capture it."""
        self.connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            self.connection.execute(statement)
        self.connection.execute("COMMIT")
        return self.follow()

    def follow(self) -> CapturedTransaction | None:
        transaction = self.capture.capture()
        if transaction is not None:
            apply(transaction, self.pages)
        return transaction

    def spill_and_roll_back(self, blobs: int = 40) -> None:
        """Fill the WAL with frames of a transaction that never commits."""
        self.connection.execute("PRAGMA cache_size=5")
        self.connection.execute("BEGIN IMMEDIATE")
        for _ in range(blobs):
            self.connection.execute("INSERT INTO t (b) VALUES (randomblob(4000))")
        self.connection.execute("ROLLBACK")

    def checkpoint(self, mode: str) -> tuple[int, int, int]:
        row = self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return int(row[0]), int(row[1]), int(row[2])

    def assert_whole(self) -> None:
        assert self.pages == pages_of(self.path)

    def close(self) -> None:
        self.capture.close()
        self.connection.close()


INSERT = "INSERT INTO t (b) VALUES (randomblob(200))"


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    shard = Shard(tmp_path / "shard.db")
    shard.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    yield shard
    shard.close()


def required(transaction: CapturedTransaction | None) -> CapturedTransaction:
    assert transaction is not None
    return transaction


# ---- What a commit left in the WAL -------------------------------------------------------------------


def test_a_transaction_is_captured_with_all_its_statements(shard: Shard) -> None:
    transaction = required(shard.execute(INSERT, INSERT, "CREATE TABLE u (c)"))
    assert transaction.page_count == 3
    shard.assert_whole()


def test_each_transaction_is_captured_once(shard: Shard) -> None:
    required(shard.execute(INSERT))
    assert shard.capture.capture() is None


def test_a_transaction_that_changes_nothing_gives_none(shard: Shard) -> None:
    assert shard.execute("SELECT * FROM t") is None
    required(shard.execute(INSERT))


def test_a_wal_that_does_not_exist_yet_gives_none_until_something_is_written(tmp_path: Path) -> None:
    capture = WalCapture(tmp_path / "shard.db-wal")
    assert (capture.capture(), capture.last_transaction(), capture.wal_bytes) == (None, None, 0)
    connection = open_for_writing(tmp_path / "shard.db")
    assert capture.capture() is None  # the switch to WAL mode is written into the shard file itself
    connection.execute("CREATE TABLE t (a)")
    assert required(capture.capture()).page_count == 2
    connection.close()
    capture.close()


@pytest.mark.parametrize("blobs", [FIRST_READ - 2, FIRST_READ, FURTHER_READ + FIRST_READ, 3 * FURTHER_READ])
def test_a_transaction_of_any_size_is_captured_whole(shard: Shard, blobs: int) -> None:
    transaction = required(shard.execute(*["INSERT INTO t (b) VALUES (randomblob(4000))"] * blobs))
    assert transaction.frame_count >= blobs
    shard.assert_whole()


@pytest.mark.parametrize("frame_count", [*range(1, 2 * FIRST_READ + 2), FIRST_READ + FURTHER_READ])
def test_the_end_of_a_transaction_is_found_on_either_side_of_a_read(shard: Shard, frame_count: int) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (zeroblob(3000))"] * (FIRST_READ + FURTHER_READ + 10))
    transaction = required(shard.execute(f"UPDATE t SET b = randomblob(3000) WHERE a <= {frame_count}"))
    assert transaction.frame_count == frame_count
    shard.assert_whole()
    required(shard.execute(INSERT))
    shard.assert_whole()


def test_a_page_spilled_and_changed_again_is_captured_as_it_was_committed(shard: Shard) -> None:
    shard.connection.execute("PRAGMA cache_size=5")
    statements = ["INSERT INTO t (b) VALUES (randomblob(3000))"] * 60
    transaction = required(shard.execute(*statements, "UPDATE t SET b = 'short' WHERE a < 30", *statements))
    assert transaction.frame_count > 60
    shard.assert_whole()


def test_vacuum_is_captured_as_the_transaction_that_shrinks_the_database(shard: Shard) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(4000))"] * 50)
    shard.execute("DELETE FROM t WHERE a > 3")
    before = len(shard.pages)
    shard.connection.execute("VACUUM")
    assert required(shard.follow()).page_count < before
    shard.assert_whole()


# ---- Frames that are not the transaction's -----------------------------------------------------------


def test_frames_of_a_rolled_back_transaction_are_not_captured(shard: Shard) -> None:
    shard.spill_and_roll_back()
    assert shard.capture.capture() is None


def test_a_transaction_written_over_a_rolled_back_one_is_captured_alone(shard: Shard) -> None:
    shard.spill_and_roll_back()
    assert required(shard.execute(INSERT)).frame_count <= 2
    shard.assert_whole()
    assert shard.capture.capture() is None  # what is left of the rolled-back frames does not chain
    required(shard.execute(*[INSERT] * 100))
    shard.assert_whole()


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_a_restarted_wal_is_read_from_its_start_and_not_into_the_former_run(shard: Shard, mode: str) -> None:
    for _ in range(5):
        shard.execute(*["INSERT INTO t (b) VALUES (randomblob(4000))"] * 5)
    long_before = shard.capture.wal_bytes
    busy, _, _ = shard.checkpoint(mode)
    assert busy == 0
    assert shard.capture.capture() is None
    transaction = required(shard.execute(INSERT))
    assert shard.capture.wal_bytes == HEADER_SIZE + len(transaction.frames) < long_before
    assert shard.capture.capture() is None
    shard.assert_whole()


def test_a_rolled_back_transaction_that_restarted_the_wal_leaves_nothing_to_capture(shard: Shard) -> None:
    shard.execute(*[INSERT] * 50)
    shard.checkpoint("RESTART")
    shard.spill_and_roll_back()
    assert shard.capture.capture() is None
    assert shard.capture.last_transaction() is None
    required(shard.execute(INSERT))
    shard.assert_whole()


def test_a_reader_that_holds_the_wal_back_does_not_disturb_capture(shard: Shard) -> None:
    reader = open_for_reading(shard.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()
    for _ in range(3):
        required(shard.execute(INSERT))
        shard.checkpoint("PASSIVE")
    reader.close()
    shard.checkpoint("PASSIVE")
    required(shard.execute(INSERT))
    shard.assert_whole()


# ---- Opening a WAL that is there already -------------------------------------------------------------


def crash(shard: Shard, into: Path) -> Path:
    """Copy what a killed process leaves: the shard and its WAL; the shared index is rebuilt from them."""
    into.mkdir()
    shutil.copy(shard.path, into / "shard.db")
    if wal_of(shard.path).exists():
        shutil.copy(wal_of(shard.path), wal_of(into / "shard.db"))
    return into / "shard.db"


def test_after_a_crash_what_is_in_the_wal_is_not_captured_again(shard: Shard, tmp_path: Path) -> None:
    shard.execute(INSERT)
    restarted = Shard(crash(shard, tmp_path / "crashed"))
    assert restarted.capture.wal_bytes == shard.capture.wal_bytes
    assert restarted.follow() is None
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("blobs", [1, 100])
def test_a_transaction_that_was_committed_but_not_captured_before_a_crash_is_the_last(
    shard: Shard, tmp_path: Path, blobs: int
) -> None:
    shard.connection.execute("BEGIN")
    for _ in range(blobs):
        shard.connection.execute("INSERT INTO t (b) VALUES (randomblob(4000))")
    shard.connection.execute("COMMIT")
    restarted = Shard(crash(shard, tmp_path / "crashed"))
    last = required(restarted.capture.last_transaction())
    apply(last, shard.pages)
    assert shard.pages == pages_of(restarted.path)
    assert last == shard.capture.capture()
    restarted.close()


def test_the_last_transaction_is_the_one_just_captured(shard: Shard) -> None:
    transaction = shard.execute(INSERT)
    assert shard.capture.last_transaction() == transaction
    assert shard.execute("SELECT 1") is None
    assert shard.capture.last_transaction() == transaction


def test_after_a_truncating_checkpoint_there_is_no_last_transaction(shard: Shard) -> None:
    shard.execute(INSERT)
    shard.checkpoint("TRUNCATE")
    assert shard.capture.last_transaction() is None


def test_a_truncating_checkpoint_frees_the_wal_unless_a_reader_is_in_its_way(shard: Shard) -> None:
    shard.execute(INSERT)
    in_use = shard.capture.wal_bytes
    assert in_use == wal_of(shard.path).stat().st_size
    reader = open_for_reading(shard.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchone()
    shard.connection.execute("PRAGMA busy_timeout=0")
    assert shard.checkpoint("TRUNCATE")[0] == 1
    assert shard.capture.wal_bytes == in_use
    reader.close()
    assert shard.checkpoint("TRUNCATE")[0] == 0
    assert shard.capture.wal_bytes == 0


def test_after_a_clean_end_there_is_no_last_transaction(shard: Shard) -> None:
    shard.close()
    restarted = Shard(shard.path)
    assert restarted.capture.last_transaction() is None
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


def test_frames_without_their_commit_mark_at_the_end_are_not_the_last_transaction(
    shard: Shard, tmp_path: Path
) -> None:
    transaction = shard.execute(INSERT)
    shard.spill_and_roll_back()
    restarted = Shard(crash(shard, tmp_path / "crashed"))
    assert restarted.capture.last_transaction() == transaction
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("last_frames", [2, 5, 20])
def test_a_transaction_that_a_crash_kept_out_of_a_living_index_is_stepped_back_over(
    shard: Shard, tmp_path: Path, last_frames: int
) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(3000))"] * 20)
    twin = Shard(crash(shard, tmp_path / "twin"))
    twin.execute(f"UPDATE t SET b = randomblob(3000) WHERE a <= {last_frames}")
    # Written to the file, never entered in the index, which the open connection keeps alive.
    shutil.copyfile(wal_of(twin.path), wal_of(shard.path))
    shard.capture.close()
    shard.capture = WalCapture(wal_of(shard.path))
    assert shard.capture.wal_bytes == twin.capture.wal_bytes
    required(shard.execute("UPDATE t SET b = randomblob(3000) WHERE a <= 5"))
    shard.assert_whole()
    required(shard.execute(INSERT))
    shard.assert_whole()
    twin.close()


# ---- Damage ------------------------------------------------------------------------------------------

ZONES = {
    "page number": range(4),
    "commit mark": range(4, 8),
    "salts": range(8, 16),
    "checksum": range(16, 24),
    "page": (24, 25, 2000, FRAME_SIZE - 1),
}
BYTES_OF_A_FRAME = [offset for zone in ZONES.values() for offset in zone]


def flip(path: Path, offset: int, mask: int = 0x20) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def commit_three_frames(shard: Shard) -> int:
    """Commit a transaction of three frames without capturing it; return its offset in the WAL."""
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(3000))"] * 8)
    offset = shard.capture.wal_bytes
    shard.connection.execute("UPDATE t SET b = randomblob(3000) WHERE a <= 3")
    assert wal_of(shard.path).stat().st_size == offset + 3 * FRAME_SIZE
    return offset


@pytest.mark.parametrize("frame", range(3))
@pytest.mark.parametrize("at", BYTES_OF_A_FRAME)
def test_a_flipped_byte_anywhere_in_a_committed_frame_is_damage(shard: Shard, frame: int, at: int) -> None:
    offset = commit_three_frames(shard)
    flip(wal_of(shard.path), offset + frame * FRAME_SIZE + at)
    for _ in range(2):
        with pytest.raises(ShardDamaged, match=f"shard.db-wal, transaction at byte {offset}: "):
            shard.capture.capture()


@pytest.mark.parametrize("frame", [0, FIRST_READ - 1, FIRST_READ, FIRST_READ + FURTHER_READ, 99])
def test_damage_in_a_large_transaction_is_named_by_its_frame(shard: Shard, frame: int) -> None:
    shard.execute(*["INSERT INTO t (b) VALUES (randomblob(3000))"] * 110)
    offset = shard.capture.wal_bytes
    shard.connection.execute("UPDATE t SET b = randomblob(3000) WHERE a <= 100")
    flip(wal_of(shard.path), offset + frame * FRAME_SIZE + 1000)
    with pytest.raises(ShardDamaged, match=f"frame {frame + 1} of 100 contradicts its checksum"):
        shard.capture.capture()


@pytest.mark.parametrize("at", BYTES_OF_A_FRAME)
def test_a_flipped_byte_in_the_unread_tail_ends_the_wal_where_sqlite_ends_it(
    shard: Shard, tmp_path: Path, at: int
) -> None:
    offset = commit_three_frames(shard)
    path = crash(shard, tmp_path / "crashed")
    flip(wal_of(path), offset + FRAME_SIZE + at)
    restarted = Shard(path)
    assert restarted.pages == shard.pages  # SQLite shows the state before the damaged transaction
    assert restarted.capture.wal_bytes == offset
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("at", range(HEADER_SIZE))
def test_a_flipped_byte_in_the_header_of_a_wal_in_use_is_damage(shard: Shard, at: int) -> None:
    commit_three_frames(shard)
    flip(wal_of(shard.path), at)
    for _ in range(2):
        with pytest.raises(ShardDamaged, match="WAL header"):
            shard.capture.capture()


@pytest.mark.parametrize("at", [*range(4), *range(8, HEADER_SIZE)])
def test_a_wal_whose_header_does_not_hold_at_the_start_counts_as_empty_as_for_sqlite(
    shard: Shard, tmp_path: Path, at: int
) -> None:
    shard.checkpoint("PASSIVE")
    shard.execute(INSERT)
    path = crash(shard, tmp_path / "crashed")
    flip(wal_of(path), at)
    restarted = Shard(path)
    assert restarted.capture.last_transaction() is None
    assert restarted.follow() is None
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


@pytest.mark.parametrize("cut", [1, FRAME_HEADER_SIZE, FRAME_SIZE - 1, FRAME_SIZE, 3 * FRAME_SIZE - 1])
def test_a_torn_tail_ends_the_wal_before_its_transaction(shard: Shard, tmp_path: Path, cut: int) -> None:
    offset = commit_three_frames(shard)
    path = crash(shard, tmp_path / "crashed")
    with wal_of(path).open("r+b") as file:
        file.truncate(offset + 3 * FRAME_SIZE - cut)
    restarted = Shard(path)
    assert restarted.capture.wal_bytes == offset
    assert restarted.pages == shard.pages
    required(restarted.execute(INSERT))
    restarted.assert_whole()
    restarted.close()


def test_a_commit_mark_that_vanished_is_found_by_the_next_capture(shard: Shard) -> None:
    offset = commit_three_frames(shard)
    mark = offset + 2 * FRAME_SIZE + 4
    with wal_of(shard.path).open("r+b") as file:
        file.seek(mark)
        file.write(bytes(4))
    assert shard.capture.capture() is None
    shard.connection.execute(INSERT)
    with pytest.raises(ShardDamaged, match="frame 3 of"):
        shard.capture.capture()


def test_a_shard_of_another_page_size_is_refused_by_name_and_value(tmp_path: Path) -> None:
    path = tmp_path / "shard.db"
    connection = open_for_writing(path)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA page_size=1024")
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (a)")
    capture = WalCapture(wal_of(path))
    connection.execute("CREATE TABLE u (a)")
    with pytest.raises(ShardDamaged, match="page size is 1024; allowed is 4096"):
        capture.capture()
    capture.close()
    connection.close()


# ---- Histories ---------------------------------------------------------------------------------------

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
TestHistories.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
