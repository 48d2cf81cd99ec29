"""A shard to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.capture.harness import Shard


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    shard = Shard(tmp_path / "shard.db")
    shard.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    yield shard
    shard.close()
