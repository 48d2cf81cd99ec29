"""What may name an entry's kind: the kinds that the project knows, and whatever else an agent calls its entries.

Unknown kinds are kept as they came. Importers and the primary ask the same question here, so nothing that an
importer takes for an entry is refused when it is appended.
"""

from __future__ import annotations

import re

KIND_SYNTAX = "1 to 64 letters, digits, '_', '.' or '-', a letter first"
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def is_kind(text: str) -> bool:
    """Whether `text` may be an entry's kind, as `KIND_SYNTAX` says."""
    return _KIND.fullmatch(text) is not None
