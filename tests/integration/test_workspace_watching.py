"""Passes follow what happens to a real folder, and what happens to the cluster."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from agent_core.client.workspaces import Changed
from agent_core.errors import HeadwaterError, InvalidRequest, Unavailable
from agent_core.position import Position
from agent_core.workspace.document import ChangeOutcome, DocumentChange, content_hash
from agent_core.workspace.stored import DocumentSummary
from ops.workspace import watching
from ops.workspace.folder import Folder
from ops.workspace.sync import SyncSummary, WorkspaceSync

DEADLINE_SECONDS = 30


class HeldIndex:
    """An index in memory. It fails with the errors in `failing`, one for each call."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.failing: list[HeadwaterError] = []

    async def documents(
        self, workspace: str, *, page_size: int, min_position: Position | None
    ) -> AsyncIterator[DocumentSummary]:
        for path, held in sorted(self.held.items()):
            yield DocumentSummary(path, "", path, "", held, 1, 1)

    async def change(self, workspace: str, changes: Sequence[DocumentChange]) -> Changed:
        if changes and self.failing:
            raise self.failing.pop(0)
        for change in changes:
            if change.document is None:
                del self.held[change.path]
            else:
                self.held[change.path] = change.document.content_hash
        return Changed([ChangeOutcome.APPLIED] * len(changes), Position(1, 1))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def index() -> HeldIndex:
    return HeldIndex()


@pytest.fixture
async def told(root: Path, index: HeldIndex) -> AsyncIterator[AsyncIterator[SyncSummary | HeadwaterError]]:
    folder = Folder(root)
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        aclosing(watching.passes(WorkspaceSync(index, "w", folder), folder)) as passes,
    ):
        yield passes


def holds(index: HeldIndex, **texts: str) -> bool:
    return index.held == {f"{name}.md": content_hash(text.encode()) for name, text in texts.items()}


async def test_each_change_of_the_folder_is_followed(
    root: Path, index: HeldIndex, told: AsyncIterator[SyncSummary | HeadwaterError]
) -> None:
    (root / "a.md").write_text("1")
    await anext(told)
    assert holds(index, a="1")
    await anext(told)  # the watch has begun
    (root / "a.md").write_text("22")
    while not holds(index, a="22"):
        await anext(told)
    (root / "a.md").rename(root / "b.md")
    while not holds(index, b="22"):
        await anext(told)
    (root / "new").mkdir()
    (root / "b.md").rename(root / "new" / "b.md")
    while index.held.keys() != {"new/b.md"}:
        await anext(told)
    shutil.rmtree(root / "new")
    while index.held:
        await anext(told)


async def test_what_changes_between_the_first_pass_and_the_watch_is_found(
    root: Path, index: HeldIndex, told: AsyncIterator[SyncSummary | HeadwaterError]
) -> None:
    await anext(told)
    (root / "a.md").write_text("1")
    await anext(told)
    assert holds(index, a="1")


async def test_changes_that_the_watch_does_not_tell_are_found_later(
    root: Path,
    index: HeldIndex,
    told: AsyncIterator[SyncSummary | HeadwaterError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "RESCAN_SECONDS", 0.01)
    await anext(told)
    await anext(told)
    again = await anext(told)
    assert isinstance(again, SyncSummary), "a pass without any change of the folder"


async def test_an_error_that_may_pass_is_told_and_the_pass_made_again(
    root: Path, index: HeldIndex, told: AsyncIterator[SyncSummary | HeadwaterError]
) -> None:
    (root / "a.md").write_text("1")
    index.failing = [Unavailable("no primary"), Unavailable("no primary yet")]
    assert [str(await anext(told)) for _ in range(2)] == ["no primary", "no primary yet"]
    assert isinstance(await anext(told), SyncSummary)
    assert holds(index, a="1")


async def test_an_error_that_will_not_pass_ends_the_watch(
    root: Path, index: HeldIndex, told: AsyncIterator[SyncSummary | HeadwaterError]
) -> None:
    (root / "a.md").write_text("1")
    index.failing = [InvalidRequest("never")]
    with pytest.raises(InvalidRequest):
        await anext(told)


async def test_a_folder_that_goes_empties_no_index(
    root: Path, index: HeldIndex, told: AsyncIterator[SyncSummary | HeadwaterError]
) -> None:
    (root / "a.md").write_text("1")
    await anext(told)
    await anext(told)
    shutil.move(root, root.parent / "elsewhere")
    with pytest.raises(FileNotFoundError):
        while True:
            await anext(told)
    assert holds(index, a="1")
