"""Makes text harmless to look at: nothing hidden, nothing reordered, nothing endless. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

SHOWN_CHARACTERS = 20_000
"""Of one text; the rest is behind a link."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Control sequences of terminals (ECMA-48): CSI, OSC with its text, and the two-character ones."""
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, those that change the direction of text, those without a width, halves of pairs, tags."""
_PICTURES = 0x2400
_DELETE_PICTURE = "\u2421"


class Clipped(NamedTuple):
    """The beginning of a text that can be looked at, and how many characters are left out."""

    text: str
    left_out: int


def visible(text: str) -> str:
    """The text without terminal sequences, and with every hidden character spelled out; newlines and tabs stay.

    Control characters become their pictures (`␀`), others their number (`⟨U+202E⟩`).
    """
    return _HIDDEN.sub(_spelled, _ANSI.sub("", text.replace("\r\n", "\n")))


def clipped(text: str, characters: int = SHOWN_CHARACTERS) -> Clipped:
    """The first `characters` of a text, made visible; of a huge text only that much is looked at."""
    return Clipped(visible(text[:characters]), max(0, len(text) - characters))


def one_line(text: str, characters: int) -> str:
    """A text as one short line."""
    beginning = " ".join(visible(text[: 4 * characters]).split())
    return (
        beginning if len(beginning) <= characters and len(text) <= 4 * characters else f"{beginning[:characters]}…"
    )


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    return _DELETE_PICTURE if code == 0x7F else f"⟨U+{code:04X}⟩"
