"""Whether a shard is the same on several nodes."""

from __future__ import annotations

from agent_core.position import Position
from agent_core.rpc.administration_pb2 import ShardDigestResponse
from agent_core.stream import to_message
from ops.verify import PAGES_NAMED, compare


def digest(pages: str, lsn: int = 7) -> ShardDigestResponse:
    """A shard in which each page is a letter."""
    hashes = b"".join(letter.encode() * 16 for letter in pages)
    return ShardDigestResponse(
        shard=3, position=to_message(Position(1, lsn)), page_count=len(pages), digest=hashes, page_hashes=hashes
    )


def test_equal_pages_at_one_position_are_identical() -> None:
    found = compare(3, {"a": digest("xyz"), "b": digest("xyz"), "c": digest("xyz")})
    assert (found.problem, found.page_count, found.differing_pages) == (None, 3, ())


def test_pages_that_differ_anywhere_are_named() -> None:
    found = compare(3, {"a": digest("wxyz"), "b": digest("wxyz"), "c": digest("vxyv")})
    assert found.differing_pages == (1, 4)
    assert found.problem == "2 of 4 pages differ"


def test_pages_that_only_some_nodes_have_differ() -> None:
    assert compare(3, {"a": digest("x"), "b": digest("xy")}).differing_pages == (2,)


def test_nodes_at_different_positions_are_not_compared() -> None:
    found = compare(3, {"a": digest("x", lsn=7), "b": digest("y", lsn=8)})
    assert found.problem == "the nodes do not meet: a at 1:7, b at 1:8"
    assert found.differing_pages == ()


def test_only_so_many_pages_are_named_but_all_are_counted() -> None:
    found = compare(3, {"a": digest("x" * 100), "b": digest("y" * 100)})
    assert len(found.differing_pages) == PAGES_NAMED
    assert found.problem == "100 of 100 pages differ"
