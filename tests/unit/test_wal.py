"""The WAL format, against a loop written from SQLite's documentation and against files that SQLite wrote."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.database.build import PAGE_SIZE, open_for_writing
from agent_core.database.wal import (
    FRAME_HEADER_SIZE,
    FRAME_SIZE,
    HEADER_SIZE,
    MAGIC_BIG_ENDIAN,
    MAGIC_LITTLE_ENDIAN,
    Checksum,
    Run,
    WalHeader,
    header_checksum,
    leading_run,
    verify_frames,
)
from agent_core.errors import ShardDamaged

SALTS = (0x01020304, 0xFFEEDDCC)


def documented_checksum(data: bytes, start: Checksum, *, big_endian: bool) -> Checksum:
    first, second = start
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    for i in range(0, len(words), 2):
        first = (first + words[i] + second) & 0xFFFFFFFF
        second = (second + words[i + 1] + first) & 0xFFFFFFFF
    return Checksum(first, second)


def make_header(*, magic: int = MAGIC_LITTLE_ENDIAN, version: int = 3007000, page_size: int = PAGE_SIZE) -> bytes:
    fields = struct.pack(">6I", magic, version, page_size, 7, *SALTS)
    big_endian = magic == MAGIC_BIG_ENDIAN
    return fields + struct.pack(">2I", *documented_checksum(fields, Checksum(0, 0), big_endian=big_endian))


def make_frames(
    pages: list[tuple[int, int, bytes]], start: Checksum, *, big_endian: bool = False
) -> tuple[bytes, Checksum]:
    frames = b""
    checksum = start
    for page_number, page_count, page in pages:
        marks = struct.pack(">2I", page_number, page_count)
        checksum = documented_checksum(marks + page, checksum, big_endian=big_endian)
        frames += marks + struct.pack(">4I", *SALTS, *checksum) + page
    return frames, checksum


words = st.integers(0, 0xFFFFFFFF)
checksums = st.builds(Checksum, words, words)
frame_contents = st.tuples(
    words,
    words,
    st.integers(0, 1 << 32).map(lambda seed: struct.pack("<Q", seed * 0x9E3779B97F4A7C15 & (1 << 64) - 1) * 512),
)


@given(contents=st.lists(frame_contents, min_size=1, max_size=5), start=checksums, big_endian=st.booleans())
def test_frames_continue_the_checksum_as_the_documented_loop_does(
    contents: list[tuple[int, int, bytes]], start: Checksum, big_endian: bool
) -> None:
    frames, end = make_frames(contents, start, big_endian=big_endian)
    assert verify_frames(frames, len(contents), start, big_endian=big_endian) == (len(contents), end)


@given(contents=st.lists(frame_contents, min_size=1, max_size=4), start=checksums, data=st.data())
def test_the_first_frame_with_a_flipped_bit_ends_what_holds(
    contents: list[tuple[int, int, bytes]], start: Checksum, data: st.DataObject
) -> None:
    frames, _ = make_frames(contents, start)
    broken = data.draw(st.integers(0, len(contents) - 1))
    checksummed = st.one_of(st.integers(0, 7), st.integers(16, FRAME_SIZE - 1))
    damaged = bytearray(frames)
    damaged[broken * FRAME_SIZE + data.draw(checksummed)] ^= 1 << data.draw(st.integers(0, 7))
    _, before = make_frames(contents[:broken], start)
    assert verify_frames(damaged, len(contents), start) == (broken, before)


def test_the_extremes_of_a_word_do_not_overflow() -> None:
    frames, end = make_frames([(0xFFFFFFFF, 0xFFFFFFFF, b"\xff" * PAGE_SIZE)] * 2, Checksum(0xFFFFFFFF, 0xFFFFFFFF))
    assert verify_frames(frames, 2, Checksum(0xFFFFFFFF, 0xFFFFFFFF)) == (2, end)


def test_no_frames_leave_the_checksum_as_it_was() -> None:
    assert verify_frames(b"", 0, Checksum(3, 4)) == (0, Checksum(3, 4))


def test_what_sqlite_writes_is_read_whole(tmp_path: Path) -> None:
    connection = open_for_writing(tmp_path / "shard.db")
    connection.execute("CREATE TABLE t (a)")
    for i in range(20):
        connection.execute("INSERT INTO t VALUES (?)", ("x" * 500 * i,))
    wal = (tmp_path / "shard.db-wal").read_bytes()
    header = WalHeader.parse(wal)
    frames = wal[HEADER_SIZE:]
    count = len(frames) // FRAME_SIZE
    assert (header.page_size, len(frames) % FRAME_SIZE) == (PAGE_SIZE, 0)
    assert verify_frames(frames, count, header.checksum, big_endian=header.big_endian)[0] == count
    transactions = 0
    position = 0
    while position < count:
        run = leading_run(memoryview(frames)[position * FRAME_SIZE :], count - position, header.salts)
        assert run.page_count > 0
        position += run.frame_count
        transactions += 1
    assert transactions == 21
    connection.close()


@pytest.mark.parametrize("magic", [MAGIC_LITTLE_ENDIAN, MAGIC_BIG_ENDIAN])
def test_a_header_of_either_byte_order_is_read(magic: int) -> None:
    data = make_header(magic=magic)
    header = WalHeader.parse(data)
    assert header.big_endian == (magic == MAGIC_BIG_ENDIAN)
    assert (header.page_size, header.checkpoint_sequence, header.salts) == (PAGE_SIZE, 7, SALTS)
    assert header.checksum == header_checksum(data, big_endian=header.big_endian)


@pytest.mark.parametrize("at", range(HEADER_SIZE))
def test_a_flipped_byte_anywhere_in_a_header_is_refused(at: int) -> None:
    damaged = bytearray(make_header())
    damaged[at] ^= 0x10
    with pytest.raises(ShardDamaged, match="magic" if at < 4 else "checksum"):
        WalHeader.parse(bytes(damaged))


def test_a_header_of_another_format_version_is_refused_by_name_and_value() -> None:
    with pytest.raises(ShardDamaged, match="format version is 3008000; allowed is 3007000"):
        WalHeader.parse(make_header(version=3008000))


@pytest.mark.parametrize("length", range(HEADER_SIZE))
def test_a_header_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ShardDamaged, match=f"{length} bytes; a whole one has 32"):
        WalHeader.parse(make_header()[:length])


def blank(page_number: int, page_count: int, salts: tuple[int, int] = SALTS) -> bytes:
    return struct.pack(">4I", page_number, page_count, *salts) + bytes(FRAME_SIZE - 16)


def test_a_run_ends_with_the_first_commit_mark() -> None:
    frames = blank(3, 0) + blank(1, 5) + blank(2, 6)
    assert leading_run(frames, 3, SALTS) == Run(2, 5)


def test_a_run_without_a_commit_mark_is_all_that_was_looked_at() -> None:
    assert leading_run(blank(3, 0) + blank(1, 0), 2, SALTS) == Run(2, 0)


def test_a_frame_of_a_former_run_ends_a_run_whatever_its_commit_mark() -> None:
    assert leading_run(blank(3, 0) + blank(1, 9, (SALTS[0] - 1, 5)), 2, SALTS) == Run(1, 0)


@pytest.mark.parametrize("at", range(8, 16))
def test_a_frame_with_a_flipped_byte_in_its_salts_is_damaged(at: int) -> None:
    damaged = bytearray(blank(1, 1))
    damaged[at] ^= 0x01
    with pytest.raises(ShardDamaged, match="salts"):
        leading_run(damaged, 1, SALTS)


def test_a_frame_without_a_page_number_is_damaged() -> None:
    with pytest.raises(ShardDamaged, match="page number is 0"):
        leading_run(blank(0, 1), 1, SALTS)


def test_a_frame_is_a_header_and_a_page() -> None:
    assert FRAME_SIZE == FRAME_HEADER_SIZE + PAGE_SIZE == 4120
