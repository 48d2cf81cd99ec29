"""What a node's process writes, kept in files of bounded size."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ops.node_log import CHUNK_BYTES, OLDER_FILES, NodeLog


async def keep(log: NodeLog, *chunks: bytes) -> None:
    output = asyncio.StreamReader()
    for chunk in chunks:
        output.feed_data(chunk)
    output.feed_eof()
    log.open()
    await log.keep(output)


def files_of(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


async def test_lines_are_kept_whole_however_they_come_and_told_at_once(tmp_path: Path) -> None:
    told: list[str] = []
    log = NodeLog(tmp_path / "log.jsonl", told.append)
    await keep(log, b"one\ntw", b"o\nthree", b"\nlast words")
    assert log.path.read_text() == "one\ntwo\nthree\nlast words\n"
    assert told == ["one", "two", "three", "last words"]


async def test_a_restarted_node_goes_on_behind_what_is_there(tmp_path: Path) -> None:
    log = NodeLog(tmp_path / "log.jsonl")
    await keep(log, b"first\n")
    await keep(log, b"second\n")
    assert log.last_lines() == ("first", "second")


async def test_the_log_does_not_grow_without_bound_and_loses_the_oldest_lines_first(tmp_path: Path) -> None:
    log = NodeLog(tmp_path / "log.jsonl", file_bytes=1000)
    await keep(log, *(b"%0100d\n" % number for number in range(200)))
    files = files_of(tmp_path)
    assert [file.name for file in files] == ["log.jsonl", *(f"log.jsonl.{n}" for n in range(1, OLDER_FILES + 1))]
    assert all(file.stat().st_size <= 1000 for file in files)
    kept = [line for file in (*reversed(files[1:]), files[0]) for line in file.read_text().splitlines()]
    assert [int(line) for line in kept] == list(range(200 - len(kept), 200))


async def test_a_line_without_end_is_kept_in_pieces(tmp_path: Path) -> None:
    log = NodeLog(tmp_path / "log.jsonl")
    await keep(log, b"x" * (3 * CHUNK_BYTES))
    lines = log.path.read_text().splitlines()
    assert len(lines) > 1
    assert "".join(lines) == "x" * (3 * CHUNK_BYTES)


async def test_bytes_that_are_no_text_do_not_end_it(tmp_path: Path) -> None:
    log = NodeLog(tmp_path / "log.jsonl")
    await keep(log, b"\xff\xfe\nnext\n")
    assert log.last_lines()[-1] == "next"


async def test_a_log_that_was_never_written_has_no_lines(tmp_path: Path) -> None:
    assert NodeLog(tmp_path / "log.jsonl").last_lines() == ()
