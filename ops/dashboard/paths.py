"""Where things are, on the nodes and on the dashboard. Pure."""

from __future__ import annotations

from urllib.parse import quote


def session_path(session_id: str) -> str:
    """A session on a node."""
    return f"/v1/sessions/{quote(session_id, safe='')}"


def session_page(session_id: str, after: int | None = None) -> str:
    """A session's page; `after`: the entries past this one, else the latest."""
    page = f"/sessions/{quote(session_id, safe='')}"
    return page if after is None else f"{page}?after={after}"


def raw_entries(session_id: str) -> str:
    """Below this path are a session's entries as they are stored, by seq."""
    return f"/raw/{quote(session_id, safe='')}"
