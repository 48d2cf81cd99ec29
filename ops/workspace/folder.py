"""The documents of a folder, whatever lies in it: names, links and files of others are not trusted."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agent_core.workspace.document import MAX_DOCUMENT_BYTES, content_hash
from agent_core.workspace.names import is_document, path_problem
from agent_core.workspace.parsing import UnreadableDocument, text_of

SETTLED_NS = 2_000_000_000
"""A file that changed so lately may change again within one tick of its time stamp: it is read again next time."""


@dataclass(slots=True)
class FolderState:
    """What one scan found.

    Attributes:
        hashes: Content hashes of the documents by path.
        problems: Why files that look like documents are none, or could not be read, by path.
        unknown: Paths of files and folders that could not be read: what lies there may be as it was.
    """

    hashes: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    def is_unknown(self, path: str) -> bool:
        """Whether nothing is known of a path, for itself or for a folder that it lies in."""
        parts = path.split("/")
        return any("/".join(parts[:length]) in self.unknown for length in range(1, len(parts) + 1))


class _Version(NamedTuple):
    """Tells one state of a file from another without reading it."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Version:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class _Known(NamedTuple):
    """What a file held when it was last read: a document of this hash, or why it is none."""

    version: _Version
    content_hash: str
    problem: str


class Folder:
    """A folder that is scanned again and again; a file that has not changed is read once.

    Names that begin with a dot are passed over. Symbolic links to folders are not followed, those to files only as
    long as they stay within the folder.

    Raises:
        OSError: There is no such folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve(strict=True)
        self._known: dict[str, _Known] = {}

    def scan(self) -> FolderState:
        """Look at every file below the folder.

        Raises:
            OSError: The folder itself cannot be read.
        """
        state = FolderState()
        known: dict[str, _Known] = {}
        for path, problem in self._paths(state):
            problem = problem or path_problem(path)  # noqa: PLW2901 - the first that applies
            if problem is not None:
                state.problems[path] = problem
                continue
            try:
                found = known[path] = self._look(path)
            except FileNotFoundError:
                continue  # gone since its folder was read, or a link to nowhere
            except _NoDocument as refusal:
                state.problems[path] = str(refusal)
                continue
            except OSError as error:
                state.problems[path] = f"cannot be read: {error.strerror}"
                state.unknown.add(path)
                continue
            if found.problem:
                state.problems[path] = found.problem
            else:
                state.hashes[path] = found.content_hash
        self._known = known
        return state

    def read(self, path: str) -> bytes:
        """A document's content, one byte more than allowed at most.

        Raises:
            OSError: It cannot be read, or leaves the folder.
        """
        return self._read(path)[0]

    def _paths(self, state: FolderState) -> Iterator[tuple[str, str | None]]:
        """Paths of what is called like a document, each with what is wrong with it already."""
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self.root / folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if not folder:
                    raise
                if not isinstance(error, FileNotFoundError):
                    state.unknown.add(folder)
                    yield folder, f"cannot be read: {error.strerror}"
                continue
            for entry in found:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_symlink() and _leads_to_folder(entry):
                    yield path, "is a symbolic link to a folder, which is not followed"
                elif is_document(entry.name):
                    yield path, None

    def _look(self, path: str) -> _Known:
        version = _Version.of((self.root / path).stat())
        known = self._known.get(path)
        if known is not None and known.version == version:
            return known
        content, status = self._read(path)
        problem = ""
        try:
            text_of(content)
        except UnreadableDocument as unreadable:
            problem = str(unreadable)
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
        version = _Version.of(status) if settled else _Version(0, 0, 0, 0, 0)
        return _Known(version, content_hash(content), problem)

    def _read(self, path: str) -> tuple[bytes, os.stat_result]:
        full = self.root / path
        if not stat.S_ISREG(full.stat().st_mode):
            raise _NoDocument("is no regular file")
        # Neither a pipe that takes its place meanwhile nor a terminal may keep or steer this process.
        descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            # Where the open file is, not where a name led a moment ago.
            if not Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(self.root):
                raise _NoDocument("is a symbolic link that leaves the folder")
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _NoDocument("is no regular file")
            return file.read(MAX_DOCUMENT_BYTES + 1), status


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # it leads in a circle, or through what cannot be read
        return False


class _NoDocument(OSError):
    """A file that is called like a document and may not be read as one."""
