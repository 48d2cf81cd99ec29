"""Records as bytes: the layout, and what is refused."""

from __future__ import annotations

import os
import struct

import google_crc32c
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import LogDamaged
from agent_core.log import record as record_module
from agent_core.log.record import HEADER_BYTES, MAGIC, Record, RecordCodec, RecordKind, headers, read_header
from agent_core.position import Position
from tests.unit.log_harness import CODEC, block, encoded, record

PLAIN = record(7, frames=bytes(range(64)))
COMPRESSIBLE = record(8, frames=b"the same words " * 300)

records = st.builds(
    Record,
    kind=st.just(RecordKind.TRANSACTION),
    group=st.integers(0, 127),
    shard=st.integers(0, 128),
    position=st.builds(Position, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    page_count=st.integers(0, 2**32 - 1),
    committed_at_ms=st.integers(0, 2**64 - 1),
    frames=st.binary(max_size=300) | st.builds(lambda piece: piece * 200, st.binary(min_size=1, max_size=20)),
)


def sealed(encoded_record: bytes, *, offset: int, value: bytes) -> bytes:
    """A record with some bytes replaced and its checksum made to agree: what a hostile sender would send."""
    changed = encoded_record[:offset] + value + encoded_record[offset + len(value) :]
    return changed[:4] + struct.pack(">I", google_crc32c.value(changed[8:])) + changed[8:]


def with_payload(payload: bytes, *, uncompressed_length: int) -> bytes:
    """A compressed record whose payload is the sender's free choice."""
    head = CODEC.encode(COMPRESSIBLE)[:HEADER_BYTES]
    lengths = struct.pack(">II", HEADER_BYTES + len(payload), uncompressed_length)
    return sealed(head + payload, offset=8, value=lengths)


def test_the_layout_of_a_record_never_changes() -> None:
    made = Record(RecordKind.TRANSACTION, 2, 5, Position(3, 1204), 17, 1_700_000_000_123, b"\x01\x02\x03\x04")
    assert CODEC.encode(made).hex() == (
        "48575231"  # magic
        "499326de"  # CRC32C
        "0000003600000004"  # length, uncompressed length
        "000000000000000300000000000004b4"  # epoch, lsn
        "0000018bcfe5687b"  # committed at
        "0000001100020005"  # page count, group, shard
        "0100"  # kind, flags
        "01020304"
    )


@given(records)
def test_a_record_comes_back_as_it_was(original: Record) -> None:
    decoded, end = CODEC.decode(CODEC.encode(original))
    assert decoded == original
    assert end == len(CODEC.encode(original))


@given(st.lists(records, max_size=5))
def test_records_lie_back_to_back_in_a_block(originals: list[Record]) -> None:
    whole = b"".join(CODEC.encode(original) for original in originals)
    assert [header.position for header, _ in headers(whole)] == [original.position for original in originals]
    offset, decoded = 0, []
    while offset < len(whole):
        found, offset = CODEC.decode(whole, offset)
        decoded.append(found)
    assert decoded == originals


def test_a_header_tells_what_the_record_holds_without_decompressing() -> None:
    whole = encoded(1) + CODEC.encode(COMPRESSIBLE)
    (_, first), (header, second) = headers(whole)
    assert (first, second) == (0, len(encoded(1)))
    assert header == read_header(whole, second)
    assert header.position == COMPRESSIBLE.position
    assert header.length == len(whole) - second < len(COMPRESSIBLE.frames)
    assert (header.compressed, header.uncompressed_length) == (True, len(COMPRESSIBLE.frames))
    assert (header.kind, header.group, header.shard) == (COMPRESSIBLE.kind, COMPRESSIBLE.group, COMPRESSIBLE.shard)
    assert header.page_count == COMPRESSIBLE.page_count
    assert header.committed_at_ms == COMPRESSIBLE.committed_at_ms


def test_frames_are_compressed_only_when_that_makes_them_smaller() -> None:
    noise = record(1, frames=os.urandom(4120))
    assert len(CODEC.encode(noise)) == HEADER_BYTES + 4120
    assert len(CODEC.encode(COMPRESSIBLE)) < HEADER_BYTES + 200


@pytest.mark.parametrize("kind", [RecordKind.RESET, RecordKind.EPOCH])
def test_a_record_without_frames_is_a_header(kind: RecordKind) -> None:
    original = Record(kind, 1, 4, Position(2, 9), 0, 5, b"")
    assert len(CODEC.encode(original)) == HEADER_BYTES
    assert CODEC.decode(CODEC.encode(original)) == (original, HEADER_BYTES)


@pytest.mark.parametrize("original", [PLAIN, COMPRESSIBLE])
def test_every_flipped_bit_is_found(original: Record) -> None:
    good = CODEC.encode(original)
    for offset in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[offset] ^= 1 << bit
            with pytest.raises(LogDamaged):
                CODEC.decode(bytes(bad))


@pytest.mark.parametrize("original", [PLAIN, COMPRESSIBLE])
def test_every_truncation_is_found(original: Record) -> None:
    good = CODEC.encode(original)
    for length in range(len(good)):
        with pytest.raises(LogDamaged):
            CODEC.decode(good[:length])


def test_headers_stop_at_the_first_bad_record() -> None:
    whole = bytearray(block(1, 3))
    whole[len(encoded(1)) + HEADER_BYTES] ^= 1
    found = headers(bytes(whole))
    assert next(found)[0].position.lsn == 1
    with pytest.raises(LogDamaged, match="its checksum is"):
        next(found)
    assert [header.position.lsn for header, _ in headers(bytes(whole), verify=False)] == [1, 2, 3]


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused_and_nothing_else_happens(payload: bytes) -> None:
    for data in (payload, MAGIC + payload):
        with pytest.raises(LogDamaged):
            CODEC.decode(data)


@given(st.binary(max_size=100), st.integers(0, 2**31))
def test_a_sealed_payload_of_any_content_is_refused_unless_it_is_a_frame(payload: bytes, length: int) -> None:
    with pytest.raises(LogDamaged):
        CODEC.decode(with_payload(payload, uncompressed_length=length))


@pytest.mark.parametrize(
    ("offset", "value", "complaint"),
    [
        (48, b"\x00", "kind 0"),
        (48, b"\x04", "kind 4"),
        (49, b"\x02", "flags 2"),
        (49, b"\x01", "do not go with"),
        (12, struct.pack(">I", (1 << 30) + 1), "1073741825 bytes of frames"),
        (12, struct.pack(">I", 1), "do not go with"),
        (8, struct.pack(">I", HEADER_BYTES - 1), "do not go with"),
        (8, struct.pack(">I", 2**32 - 1), "do not go with"),
        (48, b"\x03", "kind EPOCH carries 64 bytes"),
    ],
)
def test_a_field_that_no_record_can_hold_is_refused_though_the_checksum_agrees(
    offset: int, value: bytes, complaint: str
) -> None:
    with pytest.raises(LogDamaged, match=complaint):
        CODEC.decode(sealed(CODEC.encode(PLAIN), offset=offset, value=value))


def test_a_frame_that_announces_more_than_the_header_is_refused_before_memory_is_taken() -> None:
    # A zstd frame header alone: single segment, eight bytes of content size: 2^60.
    announcing = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 60) + b"\x01\x00\x00"
    assert zstandard.frame_content_size(announcing) == 1 << 60
    with pytest.raises(LogDamaged, match="announces 1152921504606846976"):
        CODEC.decode(with_payload(announcing, uncompressed_length=1000))


def test_a_frame_of_unknown_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=False)
    with pytest.raises(LogDamaged, match="announces -1"):
        CODEC.decode(with_payload(compressor.compress(b"x" * 1000), uncompressed_length=1000))


def test_bytes_behind_the_frame_are_refused() -> None:
    payload = zstandard.ZstdCompressor(level=1).compress(b"x" * 1000) + b"more"
    with pytest.raises(LogDamaged, match="does not decompress"):
        CODEC.decode(with_payload(payload, uncompressed_length=1000))


def test_a_transaction_that_is_too_large_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "MAX_FRAMES_BYTES", 100)
    with pytest.raises(ValueError, match="frames hold 101 bytes; a record carries at most 100"):
        RecordCodec().encode(record(1, frames=bytes(101)))


def test_a_kind_without_frames_is_not_encoded_with_some() -> None:
    with pytest.raises(ValueError, match="kind EPOCH carries no frames"):
        CODEC.encode(Record(RecordKind.EPOCH, 0, 0, Position(1, 1), 0, 0, b"x"))
