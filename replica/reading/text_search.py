"""Which sessions of a shard hold a text in their title or id, where those are few."""

from __future__ import annotations

from agent_core.database.build import Connection

FEW_SESSIONS = 256
"""More than these are found faster by going through the list in its order: a page of them comes early."""
MAX_TRIGRAMS = 16
"""Of a longer text the others are not asked for: these hardly leave anything that does not hold all of it."""

_FOUND = "SELECT rowid FROM session_text WHERE session_text MATCH ? LIMIT ?"


def sessions_with(connection: Connection, text: str) -> list[int] | None:
    """The rows of all sessions of a shard that may hold `text`, in either case; None: they are many, or not known.

    What is found holds pieces of the text, and need not hold all of it.
    """
    expression = trigram_expression(text)
    if expression is None:
        return None
    rows = [row for (row,) in connection.execute(_FOUND, (expression, FEW_SESSIONS + 1))]
    return rows if len(rows) <= FEW_SESSIONS else None


def trigram_expression(text: str) -> str | None:
    """What full-text search over trigrams is asked for, so that it finds everything that holds `text`.

    None: the text is too short for it, or holds a character that no expression can.
    """
    last = len(text) - 3
    if last < 0 or "\0" in text:
        return None
    starts = [*range(0, last, 3), last][:MAX_TRIGRAMS]
    pieces = (text[start : start + 3].replace('"', '""') for start in starts)
    return " AND ".join(f'"{piece}"' for piece in pieces)
