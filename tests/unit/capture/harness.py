"""A shard whose transactions are captured and rebuilt page by page, and ways to harm its WAL."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from agent_core.database.build import open_for_reading, open_for_writing
from agent_core.database.wal import FRAME_HEADER_SIZE, FRAME_SIZE
from primary.capture import CapturedTransaction, WalCapture


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


def required(transaction: CapturedTransaction | None) -> CapturedTransaction:
    assert transaction is not None
    return transaction


def crash(shard: Shard, into: Path) -> Path:
    """Copy what a killed process leaves: the shard and its WAL; the shared index is rebuilt from them."""
    into.mkdir()
    shutil.copy(shard.path, into / "shard.db")
    if wal_of(shard.path).exists():
        shutil.copy(wal_of(shard.path), wal_of(into / "shard.db"))
    return into / "shard.db"


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
