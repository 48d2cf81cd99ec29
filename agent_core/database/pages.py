"""A shard seen as pages rather than as tables: read in one snapshot, hashed, identified, and written.

Both sides of a resync, `verify` and the applying of records look at shards this way. `sqlite_dbpage` serves
the pages, so a snapshot holds committed transactions only, those still in the WAL included.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import orjson
import xxhash

from agent_core.database.build import APPLIED_SCHEMA, PAGE_SIZE, Connection, DatabaseError, open_for_reading
from agent_core.database.schema import read_position
from agent_core.database.wal import FRAME_HEADER_SIZE, FRAME_SIZE
from agent_core.errors import HeadwaterError, ShardDamaged, Unavailable
from agent_core.position import Position

PAGE_HASH_BYTES = 16
"""xxh3_128, big-endian."""

RUN_PAGES = 256
"""Pages that are read, compared and sent in one go: 1 MiB."""

MAX_PAGE_COUNT = 1 << 26
"""The largest shard that is believed in, in pages (256 GiB); a larger claim is damage or an attack."""

LOCK_PAGE = (1 << 30) // PAGE_SIZE + 1
"""SQLite locks bytes in the middle of this page: it holds nothing, and can be neither read nor written."""

PIECE_FRAMES = 1024
"""Frames that one statement writes: SQLite keeps a copy of what it is given, 4 MiB here."""

# One step of SQLite reads the whole run. A step per page would let go of the interpreter's lock and wait for
# it again once per page, which takes 15 times as long while another thread is busy.
_READ_RUN = """
    WITH RECURSIVE run(number) AS (SELECT ?1 UNION ALL SELECT number + 1 FROM run WHERE number < ?2)
    SELECT CAST(group_concat(data, '') AS BLOB) FROM run CROSS JOIN sqlite_dbpage ON pgno = number
"""

# The same for writing. The JSON object maps page numbers to where their images begin.
_WRITE = f"""
    INSERT INTO sqlite_dbpage (pgno, data, schema)
    SELECT key, substr(?1, value, {PAGE_SIZE}), '{APPLIED_SCHEMA}' FROM json_each(?2)
"""  # noqa: S608 - constants

_frame_page_numbers = struct.Struct(f">I{FRAME_SIZE - 4}x").iter_unpack
_FILE_VERSIONS = slice(18, 20)
_BOOKKEEPING = (slice(24, 28), slice(92, 100))
_WAL_MODE = b"\x02\x02"
_NOT_THE_FILES_FAULT = ("BUSY", "CANTOPEN", "FULL", "INTERRUPT", "LOCKED", "MISUSE", "NOMEM", "PERM", "READONLY")
_MAX_WALKED_PAGES = 4096


def database_failure(error: Exception, what: str) -> HeadwaterError:
    """What an error of SQLite says about a shard file.

    Args:
        error: What SQLite raised.
        what: Opens the message, for example "shard 3 cannot be opened".

    Returns:
        `Unavailable` when the file need not be at fault (locked, no memory, no permission); else `ShardDamaged`.
    """
    name = str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")
    if name.split("_")[0] in _NOT_THE_FILES_FAULT:
        return Unavailable(f"{what}: {error}")
    return ShardDamaged(f"{what}: {error}")


def comparable(pages: bytes, first: int) -> bytes:
    """Consecutive pages without what differs between equal shards; `first` is the number of the first.

    Page 1 holds a change counter, a copy of it, and the version of the library that wrote it last. SQLite
    overwrites all three when it commits, and counts by how often this connection had to read the page again
    (after a rollback, after a restart): so each node counts differently, whatever was shipped to it.
    """
    if first != 1:
        return pages
    page = bytearray(pages[:PAGE_SIZE])
    for field in _BOOKKEEPING:
        page[field] = bytes(field.stop - field.start)
    return bytes(page) + pages[PAGE_SIZE:]


def page_hashes(pages: bytes, first: int) -> bytes:
    """The hashes of consecutive pages, back to back, as `comparable` sees them; `first` is the first's number."""
    view = memoryview(comparable(pages, first))
    digest = xxhash.xxh3_128_digest
    return b"".join([digest(view[start : start + PAGE_SIZE]) for start in range(0, len(pages), PAGE_SIZE)])


def page_digest(hashes: bytes) -> bytes:
    """One hash for a whole shard: xxh3_128 over its pages' hashes. Equal shards have equal digests."""
    return xxhash.xxh3_128_digest(hashes)


class PageSnapshot:
    """The pages of a shard as one read snapshot shows them, however long it is read.

    An open snapshot keeps the shard's WAL from being emptied: close it soon. Usable from any thread; calls
    take turns, so that closing waits for a read that is under way.

    Attributes:
        position: The position that the snapshot contains; None when the shard has no tables.
        page_count: Its pages.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turn = threading.Lock()
        connection.execute("BEGIN")
        self.position: Position | None = read_position(connection)
        self.page_count = int(connection.execute("PRAGMA page_count").fetchone()[0])

    @classmethod
    def open(cls, path: Path) -> PageSnapshot:
        """Open a snapshot of the shard at `path`.

        Raises:
            ShardDamaged: The file is not a database, or its schema cannot be read.
            Unavailable: There is no such file, or it cannot be opened now.
        """
        try:
            connection = open_for_reading(path)
        except DatabaseError as error:
            raise database_failure(error, f"{path.name} cannot be opened") from error
        try:
            return cls(connection)
        except DatabaseError as error:
            connection.close()
            raise database_failure(error, f"{path.name} cannot be read") from error

    def pages(self, first: int, count: int) -> bytes:
        """The images of `count` pages from page `first` on, back to back.

        Raises:
            ShardDamaged: SQLite cannot read all of them.
            Unavailable: SQLite cannot read now.
        """
        if count == 0:
            return b""
        last = first + count - 1
        try:
            with self._turn:
                images = self._connection.execute(_READ_RUN, (first, last)).fetchone()[0] or b""
        except DatabaseError as error:
            raise database_failure(error, f"pages {first} to {last} cannot be read") from error
        if len(images) != count * PAGE_SIZE:
            raise ShardDamaged(
                f"pages {first} to {last} take {count * PAGE_SIZE} bytes; SQLite returned {len(images)}"
            )
        return bytes(images)

    def hashes(self, first: int, count: int) -> bytes:
        """The hashes of `count` pages from page `first` on, back to back.

        Raises:
            ShardDamaged: SQLite cannot read all of them.
            Unavailable: SQLite cannot read now.
        """
        return b"".join(
            page_hashes(self.pages(start, min(RUN_PAGES, first + count - start)), start)
            for start in range(first, first + count, RUN_PAGES)
        )

    def close(self) -> None:
        """End the snapshot."""
        with self._turn:
            self._connection.close()


class PageImages(NamedTuple):
    """The images of some pages, within what they came in: writing them makes no Python object per page.

    Attributes:
        data: Holds the images.
        starts: Where in `data` each page's image begins, counted from 1, by page number.
    """

    data: bytes | bytearray | memoryview
    starts: dict[int, int]

    def within(self, page_count: int) -> PageImages:
        """Without the pages past `page_count`."""
        if max(self.starts, default=0) <= page_count:
            return self
        return PageImages(self.data, {page: start for page, start in self.starts.items() if page <= page_count})

    def write(self, connection: Connection) -> None:
        """Write the pages to the shard that an applying connection has attached, within its transaction.

        Page 1 is made to say that the file is in WAL mode, whatever the image says.
        """
        data = self.data
        if 1 in self.starts:
            start = self.starts[1] - 1
            versions = slice(start + _FILE_VERSIONS.start, start + _FILE_VERSIONS.stop)
            if data[versions] != _WAL_MODE:
                data = bytearray(data)
                data[versions] = _WAL_MODE
        connection.execute(_WRITE, (data, orjson.dumps(self.starts, option=orjson.OPT_NON_STR_KEYS).decode()))


def images_in_frames(frames: bytes) -> Iterator[PageImages]:
    """The pages in raw WAL frames, in pieces to be written in order; of several images of one page the last counts.

    Args:
        frames: Whole frames (`FRAME_SIZE`), back to back.
    """
    size = PIECE_FRAMES * FRAME_SIZE
    for begin in range(0, len(frames), size):
        data = memoryview(frames)[begin : begin + size] if len(frames) > size else frames
        numbers = chain.from_iterable(_frame_page_numbers(data))
        yield PageImages(data, dict(zip(numbers, count(FRAME_HEADER_SIZE + 1, FRAME_SIZE), strict=False)))


class ReplicationRow(NamedTuple):
    """What a shard says about itself: whose it is, and the position of its last transaction."""

    cluster_id: str
    shard: int
    position: Position


def find_replication_row(page: Callable[[int], bytes]) -> ReplicationRow | None:
    """The replication row, found by walking the B-trees in page images; None when the shard has no tables.

    Whoever has just written pages beneath SQLite cannot ask it for rows before the commit: its view of the
    schema is stale. The images themselves are not (https://www.sqlite.org/fileformat2.html#b_tree_pages).

    Args:
        page: Returns the image of a page by its number.

    Raises:
        ShardDamaged: The images do not hold B-trees that lead to the row.
    """
    try:
        for payload in _rows(page, 1):
            kind, name, _, root = _columns(payload, 4)
            if (kind, name) == ("table", "replication") and isinstance(root, int):
                return _replication_row(page, root)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ShardDamaged(f"the pages do not lead to the replication row: {error}") from error
    return None


def _replication_row(page: Callable[[int], bytes], root: int) -> ReplicationRow:
    payload = next(_rows(page, root), None)
    if payload is None:
        raise ShardDamaged("the replication table has no row")
    _, cluster_id, shard, epoch, lsn = _columns(payload, 5)
    if isinstance(cluster_id, str) and isinstance(shard, int) and isinstance(epoch, int) and isinstance(lsn, int):
        return ReplicationRow(cluster_id, shard, Position(epoch, lsn))
    raise ShardDamaged(
        f"the replication row holds {(cluster_id, shard, epoch, lsn)!r}, not text and three integers"
    )


def _rows(page: Callable[[int], bytes], root: int) -> Iterator[bytes]:
    """The rows of a table, in order, each as far as its own page holds it."""
    waiting = [root]
    walked = 0
    while waiting:
        number = waiting.pop()
        walked += 1
        if walked > _MAX_WALKED_PAGES:
            raise ShardDamaged(
                f"the table that begins at page {root} does not end within {_MAX_WALKED_PAGES} pages"
            )
        image = page(number)
        start = 100 if number == 1 else 0
        kind = image[start]
        (cell_count,) = struct.unpack_from(">H", image, start + 3)
        if kind == 5:
            cells = struct.unpack_from(f">{cell_count}H", image, start + 12)
            children = [struct.unpack_from(">I", image, cell)[0] for cell in cells]
            children += struct.unpack_from(">I", image, start + 8)
            waiting += reversed(children)
        elif kind == 13:
            for cell in struct.unpack_from(f">{cell_count}H", image, start + 8):
                size, offset = _varint(image, cell)
                _, offset = _varint(image, offset)
                yield image[offset : offset + size]
        else:
            raise ShardDamaged(f"page {number} begins with {kind}; a table's pages begin with 5 or 13")


def _columns(payload: bytes, count: int) -> list[int | str | None]:
    """The first columns of a row, of those kinds that a replication row and the schema have."""
    offset, place = _varint(payload, 0)[::-1]
    columns: list[int | str | None] = []
    for _ in range(count):
        serial_type, offset = _varint(payload, offset)
        if serial_type == 0:
            columns.append(None)
        elif serial_type <= 6:
            width = (1, 2, 3, 4, 6, 8)[serial_type - 1]
            columns.append(int.from_bytes(payload[place : place + width], "big", signed=True))
            place += width
        elif serial_type in {8, 9}:
            columns.append(serial_type - 8)
        elif serial_type >= 13 and serial_type % 2:
            width = (serial_type - 13) // 2
            columns.append(payload[place : place + width].decode())
            place += width
        else:
            raise ShardDamaged(f"a column of type {serial_type} stands where text or an integer belongs")
    return columns


def _varint(buffer: bytes, offset: int) -> tuple[int, int]:
    """An integer of 1 to 9 bytes, and the offset behind it."""
    value = 0
    for index in range(8):
        byte = buffer[offset + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, offset + index + 1
    return value << 8 | buffer[offset + 8], offset + 9
