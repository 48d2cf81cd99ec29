"""A primary's shard with a few pages, and a standby's thread without any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.resync.harness import Thread, open_thread
from tests.unit.shard_histories import History


@pytest.fixture
def history(history: History) -> History:
    history.fill(40)
    return history


@pytest.fixture
async def thread(tmp_path: Path) -> AsyncIterator[Thread]:
    thread = await open_thread(tmp_path / "standby.db")
    yield thread
    await thread.close()
