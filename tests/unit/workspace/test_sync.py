from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_core.client.workspaces import Changed
from agent_core.position import Position
from agent_core.workspace.document import DocumentChange
from agent_core.workspace.parsing import read_document
from agent_core.workspace.stored import DocumentSummary
from ops.workspace.folder import Folder
from ops.workspace.sync import WorkspaceSync
from replica.reading.workspace.queries import DocumentFilter, documents
from tests.unit.workspace.index import Index, document


@dataclass
class NearIndex:
    """The index without a network. `before_change` is what someone else does just before a change arrives."""

    index: Index = field(default_factory=Index)
    before_change: list[Callable[[], None]] = field(default_factory=list)
    lists: int = 0
    lsn: int = 0
    sent: list[DocumentChange] = field(default_factory=list)

    async def documents(
        self, workspace: str, *, page_size: int, min_position: Position | None
    ) -> AsyncIterator[DocumentSummary]:
        self.lists += 1
        assert min_position == Position(1, self.lsn), "a node that lags would not show everything"
        for one in documents(self.index.connection, DocumentFilter(workspace), None, page_size).documents:
            yield one

    async def change(self, workspace: str, changes: Sequence[DocumentChange]) -> Changed:
        if changes and self.before_change:
            self.before_change.pop(0)()
        self.sent += changes
        self.lsn += 1
        return Changed(self.index.change(*changes, workspace=workspace), Position(1, self.lsn))


@pytest.fixture
def near() -> NearIndex:
    return NearIndex()


def sync(near: NearIndex, root: Path) -> WorkspaceSync:
    return WorkspaceSync(near, "w", Folder(root))


async def test_a_second_sync_changes_nothing(near: NearIndex, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("one")
    (tmp_path / "b.md").write_text("---\nbad: [\n---\n")
    first = await sync(near, tmp_path).run()
    assert (first.documents, first.added, first.changed, first.removed) == (2, 2, 0, 0)
    near.sent.clear()
    second = await sync(near, tmp_path).run()
    assert (second.documents, second.added, second.changed, second.removed) == (2, 0, 0, 0)
    assert near.sent == []
    assert second.problems == first.problems
    assert first.problems[0].startswith("b.md: line 3: front matter: ")


async def test_changes_deletions_and_renames_are_followed(near: NearIndex, tmp_path: Path) -> None:
    following = sync(near, tmp_path)
    (tmp_path / "from.md").write_text("[[a]] and [b](d/b.md)")
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.md").write_text("b")
    await following.run()
    assert near.index.targets("from.md") == ["a.md", "d/b.md"]
    (tmp_path / "a.md").write_text("changed")
    (tmp_path / "d").rename(tmp_path / "e")
    summary = await following.run()
    assert (summary.documents, summary.added, summary.changed, summary.removed) == (3, 1, 1, 1)
    assert near.index.hashes().keys() == {"a.md", "e/b.md", "from.md"}
    assert near.index.targets("from.md") == ["a.md", None]
    (tmp_path / "a.md").unlink()
    assert (await following.run()).removed == 1
    assert near.index.targets("from.md") == [None, None]
    assert near.lists == 1, "what the index holds is known from what was changed"


async def test_a_pass_with_nothing_to_do_says_so_now_and_then(
    near: NearIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = sync(near, tmp_path)
    await following.run()
    calls = near.lsn
    await following.run()
    assert near.lsn == calls, "it was heard a moment ago"
    monkeypatch.setattr("ops.workspace.sync.HEARD_SECONDS", 0.0)
    await following.run()
    assert near.lsn == calls + 1


async def test_a_document_that_becomes_unreadable_is_taken_out(near: NearIndex, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    await sync(near, tmp_path).run()
    (tmp_path / "a.md").write_bytes(b"\xff")
    summary = await sync(near, tmp_path).run()
    assert (summary.documents, summary.removed) == (0, 1)
    assert summary.problems == ["a.md: line 1: not UTF-8: invalid start byte"]


async def test_what_lies_in_a_folder_that_cannot_be_read_stays(
    near: NearIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.md").write_text("text")
    await sync(near, tmp_path).run()
    monkeypatch.setattr(Folder, "_read", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    summary = await sync(near, tmp_path).run()
    assert (summary.documents, summary.removed) == (1, 0)
    assert summary.problems == ["d/a.md: cannot be read: Input/output error"]


async def test_what_another_writer_put_there_meanwhile_is_replaced(near: NearIndex, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("from the folder")
    near.before_change.append(lambda: near.index.put(document("a.md", "another"), document("x.md", "another")))
    summary = await sync(near, tmp_path).run()
    assert near.lists == 2
    assert near.index.hashes() == Folder(tmp_path).scan().hashes
    assert summary.problems == []


async def test_a_conflict_in_one_batch_leaves_the_others_as_they_are(near: NearIndex, tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"{number}.md").write_text(str(number))
    near.before_change.append(lambda: near.index.put(document("0.md", "another")))
    summary = await sync(near, tmp_path).run()
    assert near.index.hashes() == Folder(tmp_path).scan().hashes
    assert (summary.documents, summary.added, summary.changed) == (150, 149, 1)


async def test_what_another_sync_did_already_is_not_counted(near: NearIndex, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("the same")
    near.before_change.append(lambda: near.index.put(read_document("a.md", b"the same")))
    summary = await sync(near, tmp_path).run()
    assert (summary.documents, summary.added, summary.problems) == (1, 0, [])


async def test_an_index_that_never_rests_is_given_up_and_told(near: NearIndex, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("from the folder")
    near.before_change += [
        lambda text=str(number): near.index.put(document("a.md", text))  # type: ignore[misc]  # a loop's value
        for number in range(100)
    ]
    summary = await sync(near, tmp_path).run()
    assert summary.problems == ["a.md: the index holds what another writer put there meanwhile"]


async def test_a_file_that_goes_while_the_sync_runs_leaves_nothing_behind(near: NearIndex, tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(name)
    following = sync(near, tmp_path)
    really = following._folder.read

    def read(path: str) -> bytes:
        (tmp_path / "b.md").unlink(missing_ok=True)
        return really(path)

    following._folder.read = read  # type: ignore[method-assign]  # it goes between the scan and the reading
    summary = await following.run()
    assert near.index.hashes().keys() == {"a.md"}
    assert summary.problems == []


async def test_many_documents_go_in_batches_and_progress_is_told(near: NearIndex, tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"{number}.md").write_text(str(number))
    told: list[tuple[int, int]] = []
    await WorkspaceSync(near, "w", Folder(tmp_path), lambda *progress: told.append(progress)).run()
    assert told == [(settled, 150) for settled in (*range(16, 150, 16), 150)]


async def test_a_batch_is_no_larger_than_its_bound_unless_one_document_is(
    near: NearIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.workspace.sync.BATCH_BYTES", 10_000)
    for number, size in enumerate((4_000, 4_000, 4_000, 20_000, 100)):
        (tmp_path / f"{number}.md").write_text("x" * size)
    told: list[tuple[int, int]] = []
    await WorkspaceSync(near, "w", Folder(tmp_path), lambda *progress: told.append(progress)).run()
    assert told == [(2, 5), (3, 5), (4, 5), (5, 5)]


LINKS = "[[a]] [[b]] [[d/b]] [to](b.md) [from the top](/d/a) [up](../a.md)"
BODIES = [
    LINKS,
    f"---\nkind: note\ntags: [x, y]\n---\n# Title\n{LINKS}",
    "---\nbroken: [\n---\n[[b]]",
    "plain words",
]
PLACES = st.sampled_from(["a.md", "b.md", "d/a.md", "d/b.md", "d/e/b.md", "d/c.txt", ".h.md"])
STEPS = st.one_of(
    st.tuples(st.just("write"), PLACES, st.sampled_from(BODIES)),
    st.tuples(st.just("break"), PLACES, st.just("")),
    st.tuples(st.just("delete"), PLACES, st.just("")),
    st.tuples(st.just("rename"), PLACES, PLACES),
    st.tuples(st.just("move folder"), st.sampled_from(["d", "d/e"]), st.sampled_from(["f", "d2"])),
)


def take(root: Path, step: str, first: str, second: str) -> None:
    """Do to a folder what a step says, where it can be done."""
    path, other = root / first, root / second
    match step:
        case "write" | "break":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\xff\xff" if step == "break" else second.encode())
        case "delete":
            path.unlink(missing_ok=True)
        case "rename" if path.exists():
            other.parent.mkdir(parents=True, exist_ok=True)
            path.rename(other)
        case "move folder" if path.exists() and not other.exists():
            path.rename(other)


@settings(max_examples=200)
@given(history=st.lists(st.tuples(STEPS, st.booleans()), min_size=4, max_size=20))
async def test_any_history_of_a_folder_ends_in_the_index_of_a_fresh_scan(
    history: list[tuple[tuple[str, str, str], bool]],
) -> None:
    root = Path(tempfile.mkdtemp())
    followed, fresh = NearIndex(), NearIndex()
    try:
        following = sync(followed, root)
        for step, then_sync in history:
            take(root, *step)
            if then_sync:
                await following.run()
        told = await following.run()
        at_once = await sync(fresh, root).run()
        assert followed.index.content() == fresh.index.content()
        assert told.problems == at_once.problems
        followed.sent.clear()
        await following.run()
        assert followed.sent == []
    finally:
        shutil.rmtree(root)
        followed.index.close()
        fresh.index.close()
