"""What several subjects begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.unit.shard_histories import History
from tests.unit.standby_harness import Standby


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """A primary's shard with nothing but its tables."""
    history = History(tmp_path / "primary.db")
    yield history
    history.close()


@pytest.fixture
async def standby(tmp_path: Path) -> AsyncIterator[Standby]:
    """A standby of one group with one shard, not open yet."""
    async with AsyncExitStack() as stack:
        standby = Standby(tmp_path)
        stack.callback(standby.log.close)
        stack.callback(standby.history.close)
        stack.push_async_callback(standby.close)
        yield standby
