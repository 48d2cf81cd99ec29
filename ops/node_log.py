"""The log of a node that `headwater up` runs: what its process writes, in a few files of bounded size.

The process writes to a pipe and not to the file: so the file can be rotated without the process's help, and also
what Python or gRPC say when they die is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

FILE_BYTES = 16 << 20
OLDER_FILES = 3
"""`log.jsonl.1`, the latest, to `log.jsonl.3`; then the oldest is removed."""

CHUNK_BYTES = 64 * 1024
"""Read at once; a longer line is kept in pieces."""
SHOWN_LINES = 15
SHOWN_BYTES = 16 * 1024


class NodeLog:
    """One node's log.

    Attributes:
        path: The newest file.
    """

    def __init__(
        self, path: Path, on_line: Callable[[str], None] | None = None, *, file_bytes: int = FILE_BYTES
    ) -> None:
        """Keep the log at `path` and the older files beside it; `on_line` is told each line too."""
        self.path = path
        self._on_line = on_line
        self._file_bytes = file_bytes
        self._files: _Files | None = None

    def open(self) -> None:
        """Begin to write, behind what is there.

        Raises:
            OSError: The file cannot be written.
        """
        self._files = _Files(
            self.path, maxBytes=self._file_bytes, backupCount=OLDER_FILES, encoding="utf-8", errors="replace"
        )

    async def keep(self, output: asyncio.StreamReader) -> None:
        """Write all that comes from a process until its end, and close."""
        assert self._files is not None, "opened before the process starts"
        pending = b""
        try:
            while chunk := await output.read(CHUNK_BYTES):
                *lines, pending = (pending + chunk).split(b"\n")
                if len(pending) > CHUNK_BYTES:
                    lines, pending = [*lines, pending], b""
                for line in lines:
                    self._write(self._files, line)
            if pending:
                self._write(self._files, pending)
        finally:
            self._files.close()

    def last_lines(self) -> tuple[str, ...]:
        """The end of the newest file; empty when there is none."""
        try:
            with self.path.open("rb") as log:
                log.seek(max(0, self.path.stat().st_size - SHOWN_BYTES))
                return tuple(log.read().decode(errors="replace").splitlines()[-SHOWN_LINES:])
        except FileNotFoundError:
            return ()

    def _write(self, files: _Files, line: bytes) -> None:
        text = line.decode(errors="replace")
        files.handle(logging.makeLogRecord({"msg": text}))
        if self._on_line is not None:
            self._on_line(text)


class _Files(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Lose the line: a disk that is full must not fill the terminal too."""
