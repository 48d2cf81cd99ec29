"""An empty standby."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from replica.apply import ShardApplier
from tests.unit.apply.harness import open_standby


@pytest.fixture
def standby(tmp_path: Path) -> Iterator[ShardApplier]:
    applier = open_standby(tmp_path / "standby.db")
    yield applier
    applier.close()
