"""What is staged beside a shard is whole or not there, wherever the process ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_core.errors import WriteFailed
from replica.apply import ShardApplier
from replica.staging import STAGED_SUFFIX, UNFINISHED_SUFFIX, StagedPages
from tests.unit.resync.crashing import CRASHED
from tests.unit.resync.harness import Thread, resync_of, source_of
from tests.unit.shard_histories import CLUSTER, SHARD, History, pages_of


async def never(_: int) -> None:
    raise TimeoutError


@pytest.fixture
def crash_at() -> Iterator[Callable[[int, Path], int]]:
    """Stages and installs in a folder, in a process that dies at a step; returns its exit code."""
    command = [sys.executable, "-m", "tests.unit.resync.crashing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as crashing:
        steps, codes = crashing.stdin, crashing.stdout
        assert steps is not None
        assert codes is not None

        def crash_at(step: int, directory: Path) -> int:
            steps.write(f"{step} {directory}\n")
            return int(codes.readline())

        yield crash_at


def test_a_crash_at_any_step_leaves_the_shard_as_it_was_or_with_all_that_was_staged(
    tmp_path: Path, crash_at: Callable[[int, Path], int]
) -> None:
    history = History(tmp_path / "primary.db")
    history.fill(3)
    standby = ShardApplier.open(tmp_path / "standby.db", cluster_id=CLUSTER, shard=SHARD)
    standby.apply(history.records)
    before = pages_of(standby.path)
    history.fill(2)
    after = pages_of(history.path)
    history.close()
    standby.close()
    outcomes = []
    for step in range(1000):
        directory = tmp_path / f"crash-{step}"
        directory.mkdir()
        for name in ("primary.db", "standby.db"):
            shutil.copy(tmp_path / name, directory / name)
        code = crash_at(step, directory)
        shard = ShardApplier.open(directory / "standby.db", cluster_id=CLUSTER, shard=SHARD)
        found = pages_of(shard.path)
        assert not (directory / f"standby.db{UNFINISHED_SUFFIX}").exists()
        if shard.staged is not None:
            assert found in (before, after)
            outcomes.append("staged" if found == before else "installed, still staged")
            shard.install_staged()
            assert shard.applied == history.position
            assert pages_of(shard.path) == after
        else:
            assert found in (before, after)
            outcomes.append("nothing" if found == before else "installed")
            assert outcomes[-1] == "installed" or "staged" not in outcomes
        assert not (directory / f"standby.db{STAGED_SUFFIX}").exists()
        shard.close()
        if code == 0:
            break
        assert code == CRASHED
    # Every stage was met, and in this order.
    assert list(dict.fromkeys(outcomes)) == ["nothing", "staged", "installed, still staged", "installed"]
    assert len(outcomes) > 20


async def test_what_was_staged_before_stays_when_a_second_resync_cannot_be_staged(
    thread: Thread, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await thread.run(thread.owned.apply, history.records)
    before = pages_of(thread.owned.path)
    history.fill(3)
    await resync_of(thread).run(source_of(history, never, quorum_needs=lambda _: True).serve)
    first = thread.owned.staged
    assert first is not None
    history.fill(3)

    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("replica.staging._sync_wal", full)
    with pytest.raises(WriteFailed, match=r"cannot be staged: .*No space left"):
        await resync_of(thread).run(source_of(history, never, quorum_needs=lambda _: True).serve)
    assert thread.owned.staged == first == StagedPages.find(thread.owned.path, SHARD)
    assert pages_of(thread.owned.path) == before
    assert sorted(path.suffix for path in thread.owned.path.parent.glob("standby.db*")) == [
        ".db",
        ".db-shm",
        ".db-wal",
        STAGED_SUFFIX,
    ]


@pytest.mark.parametrize("change", ["grow", "shrink", "anew"])
async def test_whatever_happened_meanwhile_the_shard_becomes_identical_once_it_is_installed(
    thread: Thread, history: History, change: str
) -> None:
    if change != "anew":
        await thread.run(thread.owned.apply, history.records)
    if change == "shrink":
        history.commit("DROP TABLE filling")
        history.vacuum()
        history.commit()
    else:
        history.fill(2500)
    resync = resync_of(thread)
    assert await resync.run(source_of(history, never, quorum_needs=lambda _: True).serve) == history.position
    assert not resync.committed
    staged = thread.owned.staged
    assert staged is not None
    assert staged.pages == resync.pages_received
    await thread.run(thread.owned.install_staged)
    assert (thread.owned.applied, thread.owned.page_count) == (history.position, history.records[-1].page_count)
    assert pages_of(thread.owned.path) == pages_of(history.path)
    assert await thread.run(thread.owned.apply, [history.fill(2)]) == 1


async def test_a_resync_whose_source_has_it_committed_supersedes_what_is_staged(
    thread: Thread, history: History
) -> None:
    await resync_of(thread).run(source_of(history, never, quorum_needs=lambda _: True).serve)
    history.fill(3)
    await resync_of(thread).run(source_of(history).serve)
    assert (thread.owned.staged, thread.owned.applied) == (None, history.position)
    assert StagedPages.find(thread.owned.path, SHARD) is None
