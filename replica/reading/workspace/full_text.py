"""What someone looks for in the full text, as an expression of FTS5. Pure."""

from __future__ import annotations

import re

from agent_core.errors import InvalidRequest

MAX_TERMS = 16

_TERM = re.compile(r'"([^"]*)"?|([^\s"]+)')


def match_expression(text: str) -> str:
    """All words of `text`, wherever they stand; `"a phrase"` in this order; `begin*` any word that begins so.

    Nothing in it is taken as an operator.

    Raises:
        InvalidRequest: It holds no word, or too many.
    """
    terms = []
    for match in _TERM.finditer(text):
        phrase, word = match.groups()
        term = phrase if word is None else word
        begins = word is not None and word.endswith("*")
        if any(character.isalnum() for character in term):
            terms.append(f'"{term.rstrip("*") if begins else term}"{"*" if begins else ""}')
    if not terms:
        raise InvalidRequest(f"text holds no word to look for; got {text[:80]!r}")
    if len(terms) > MAX_TERMS:
        raise InvalidRequest(f"text holds {len(terms)} words and phrases; at most {MAX_TERMS} are allowed")
    return " ".join(terms)
