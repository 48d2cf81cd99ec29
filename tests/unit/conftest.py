"""What several subjects begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.shard_histories import History


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """A primary's shard with nothing but its tables."""
    history = History(tmp_path / "primary.db")
    yield history
    history.close()
