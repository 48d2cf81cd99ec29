"""What has to change in an index for it to hold what a folder holds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Difference(NamedTuple):
    """One document that index and folder do not agree on; its content hash in each, None where it is not."""

    path: str
    indexed: str | None
    found: str | None


def difference(
    indexed: Mapping[str, str], found: Mapping[str, str], is_unknown: Callable[[str], bool] = lambda _path: False
) -> list[Difference]:
    """The documents to change, in the order of their paths; none when both agree.

    A rename is a document that goes and one of the same content that comes.

    Args:
        indexed: Content hashes by path, as the index holds them.
        found: The same as the folder holds them.
        is_unknown: Whether nothing is known of a path in the folder, for example because its directory cannot be
            read: then the index keeps what it has.
    """
    return [
        Difference(path, indexed.get(path), found.get(path))
        for path in sorted(indexed.keys() | found.keys())
        if indexed.get(path) != found.get(path) and not (path not in found and is_unknown(path))
    ]
