"""What a workspace and a document's path within it may be called."""

from __future__ import annotations

import unicodedata

from agent_core.errors import InvalidRequest

MAX_WORKSPACE_CHARACTERS = 128
MAX_PATH_BYTES = 512
DOCUMENT_SUFFIXES = (".md", ".markdown")
"""Of the files that are documents, in either case of letters."""

_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories: control characters, lone surrogates (bytes that are not UTF-8), line separators."""


def check_workspace(name: str) -> str:
    """Return the name of a workspace that came from outside.

    Raises:
        InvalidRequest: It is empty, too long, or holds a slash or a control character.
    """
    if not 1 <= len(name) <= MAX_WORKSPACE_CHARACTERS or "/" in name or _has_forbidden(name):
        raise InvalidRequest(
            f"workspace must be 1 to {MAX_WORKSPACE_CHARACTERS} characters without slashes and control characters; "
            f"got {name[:160]!r}"
        )
    return name


def path_problem(path: str) -> str | None:
    """Why a path cannot be a document's; None: it can."""
    if _has_forbidden(path):
        return "has a control character, or bytes that are not UTF-8, in its name"
    if not 1 <= len(path.encode()) <= MAX_PATH_BYTES:
        return f"has a path of {len(path.encode())} bytes; allowed are 1 to {MAX_PATH_BYTES}"
    if any(part in {"", ".", ".."} for part in path.split("/")):
        return "must have a path relative to the workspace, without empty parts, '.' and '..'"
    return None


def check_path(path: str) -> str:
    """Return a document's path that came from outside.

    Raises:
        InvalidRequest: It can be no document's.
    """
    problem = path_problem(path)
    if problem is not None:
        raise InvalidRequest(f"the document {path[:160]!r} {problem}")
    return path


def is_document(file_name: str) -> bool:
    """Whether a file of this name is a document."""
    return file_name.lower().endswith(DOCUMENT_SUFFIXES)


def document_name(path: str) -> str:
    """What wiki links call a document: its file's name without suffix, in folded case."""
    name = path.rpartition("/")[2]
    for suffix in DOCUMENT_SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return name.casefold()


def _has_forbidden(text: str) -> bool:
    return any(unicodedata.category(character) in _FORBIDDEN for character in text)
