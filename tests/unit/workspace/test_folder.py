from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from agent_core.workspace.document import MAX_DOCUMENT_BYTES, content_hash
from ops.workspace.folder import SETTLED_NS, Folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def settle(path: Path) -> None:
    """Make a file look as if it had not changed for long, as far as its times can be set."""
    past = time.time_ns() - 2 * SETTLED_NS
    os.utime(path, ns=(past, past))


def test_documents_are_found_wherever_they_lie(root: Path) -> None:
    (root / "deep" / "down").mkdir(parents=True)
    for name in ("a.md", "deep/B.MARKDOWN", "deep/down/c.md", "deep/d.txt", ".hidden.md"):
        (root / name).write_text(name)
    (root / ".git").mkdir()
    (root / ".git" / "e.md").write_text("e")
    state = Folder(root).scan()
    assert state.hashes == {
        name: content_hash(name.encode()) for name in ("a.md", "deep/B.MARKDOWN", "deep/down/c.md")
    }
    assert state.problems == {}


def test_links_that_leave_the_folder_are_not_followed(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("secret")
    (root / "in.md").write_text("in")
    (root / "file.md").symlink_to(outside / "secret.md")
    (root / "folder").symlink_to(outside)
    (root / "within.md").symlink_to(root / "in.md")
    (root / "nowhere.md").symlink_to(outside / "gone.md")
    (root / "circle.md").symlink_to(root / "circle.md")
    state = Folder(root).scan()
    assert state.hashes.keys() == {"in.md", "within.md"}
    assert state.problems == {
        "file.md": "is a symbolic link that leaves the folder",
        "folder": "is a symbolic link to a folder, which is not followed",
        "circle.md": "cannot be read: Too many levels of symbolic links",
    }


def test_a_folder_that_is_reached_by_a_link_is_read(root: Path) -> None:
    (root / "a.md").write_text("a")
    (root.parent / "by_link").symlink_to(root)
    assert Folder(root.parent / "by_link").scan().hashes.keys() == {"a.md"}


def test_what_is_no_file_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.md")
    (root / "folder.md").mkdir()
    assert Folder(root).scan().problems == {"pipe.md": "is no regular file"}


def test_names_with_control_characters_or_without_text_are_told(root: Path) -> None:
    (root / "a\x1b[2J.md").write_text("x")
    Path(os.fsdecode(os.fsencode(root) + b"/b\xff.md")).write_text("x")
    state = Folder(root).scan()
    assert state.hashes == {}
    assert len(state.problems) == 2
    assert all("control character, or bytes that are not UTF-8" in problem for problem in state.problems.values())


def test_files_that_are_no_text_or_too_large_are_told(root: Path) -> None:
    (root / "binary.md").write_bytes(b"one\n\xff")
    (root / "large.md").write_bytes(b"x" * (MAX_DOCUMENT_BYTES + 1))
    problems = Folder(root).scan().problems
    assert problems["binary.md"] == "line 2: not UTF-8: invalid start byte"
    assert "larger than a document may be" in problems["large.md"]


def test_what_cannot_be_read_is_unknown_with_all_below_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "closed").mkdir()
    (root / "closed" / "a.md").write_text("a")
    (root / "b.md").write_text("b")
    really = os.scandir

    def scandir(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return really(path)

    # The tests may run as root, whom no permission keeps out.
    monkeypatch.setattr("ops.workspace.folder.os.scandir", scandir)
    state = Folder(root).scan()
    assert state.problems == {"closed": "cannot be read: Permission denied"}
    assert [state.is_unknown(path) for path in ("closed/a.md", "closed/deep/b.md", "b.md")] == [True, True, False]


def test_a_folder_that_is_gone_is_no_empty_one(root: Path) -> None:
    folder = Folder(root)
    root.rmdir()
    with pytest.raises(OSError, match="No such file"):
        folder.scan()


def test_a_change_that_keeps_size_and_time_is_seen(root: Path) -> None:
    file = root / "a.md"
    file.write_text("one")
    folder = Folder(root)
    before = folder.scan().hashes
    times = file.stat()
    file.write_text("two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder.scan().hashes != before


def test_a_file_that_has_settled_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = root / "a.md"
    file.write_text("one")
    settle(file)
    changed = file.stat().st_ctime_ns
    monkeypatch.setattr("ops.workspace.folder.time.time_ns", lambda: changed + 2 * SETTLED_NS)
    folder = Folder(root)
    first = folder.scan().hashes
    monkeypatch.setattr(Folder, "_read", lambda *_: pytest.fail("it has not changed"))
    assert folder.scan().hashes == first
