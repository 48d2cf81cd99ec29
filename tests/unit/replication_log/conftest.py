"""Logs to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_core.log.log import ReplicationLog
from tests.unit.log_harness import RECORD_BYTES, SMALL_SEGMENT, encoded, open_log


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "group-000"


@pytest.fixture
def log(directory: Path) -> Iterator[ReplicationLog]:
    opened = open_log(directory)
    yield opened
    opened.close()


@pytest.fixture
def small(directory: Path) -> Iterator[ReplicationLog]:
    """Nine records of two epochs in three segments, each appended by itself; only the newest is in memory."""
    opened = open_log(directory, segment_bytes=SMALL_SEGMENT, tail_bytes=RECORD_BYTES)
    for lsn in range(1, 10):
        opened.append(encoded(lsn, epoch=1 if lsn < 6 else 2))
    yield opened
    opened.close()
