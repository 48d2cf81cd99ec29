"""Text from transcripts, made harmless for a terminal."""

from __future__ import annotations

import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn"}
"""Unicode categories that steer a terminal or reorder what is shown: control, format, surrogate, private, none."""


def plain(text: str) -> str:
    """The text with control and direction-changing characters spelled out as escapes; newline and tab stay."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in HIDDEN
        else f"\\u{ord(character):04x}"
        for character in text
    )
