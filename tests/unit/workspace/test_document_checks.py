from __future__ import annotations

from collections.abc import Callable

import pytest

from agent_core.errors import InvalidRequest
from agent_core.rpc import workspace_pb2 as pb
from agent_core.workspace.document import DocumentChange
from agent_core.workspace.parsing import read_document
from agent_core.workspace.source import Claim
from agent_core.workspace.wire import change_from_wire, change_to_wire, claim_to_wire
from primary.workspace.checks import checked_changes, checked_claim

TEXT = "---\nkind: note\ntags: [a, b]\n---\n# T\n[x](b.md) [[y]] <https://z.example> ![i](i.png)"


def request() -> pb.ChangeDocumentsRequest:
    change = DocumentChange("a.md", "", read_document("a.md", TEXT.encode()))
    return pb.ChangeDocumentsRequest(workspace="w", changes=[change_to_wire(change)])


def test_a_change_comes_over_the_wire_as_it_was() -> None:
    for change in (
        DocumentChange("a.md", "0" * 32, read_document("a.md", TEXT.encode())),
        DocumentChange("a.md", "0" * 32, None),
    ):
        assert change_from_wire(change_to_wire(change)) == change


def test_what_parsing_makes_passes_the_checks() -> None:
    assert [change.path for change in checked_changes(request())] == ["a.md"]


def document(one: pb.ChangeDocumentsRequest) -> pb.Document:
    return one.changes[0].document


def _many_properties(one: pb.ChangeDocumentsRequest) -> None:
    document(one).properties.extend([pb.DocumentProperty(name="a")] * 300)


def _many_links(one: pb.ChangeDocumentsRequest) -> None:
    document(one).links.extend([pb.DocumentLink(kind=pb.LINK_KIND_FILE)] * 2100)


def _two_wishes(one: pb.ChangeDocumentsRequest) -> None:
    document(one).links[0].wanted_name = "b"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda one: setattr(one, "workspace", "a/b"), "workspace must be"),
        (lambda one: one.changes.extend([one.changes[0]] * 256), "has 257 changes; at most 256"),
        (lambda one: setattr(one.changes[0], "path", "../a.md"), "relative to the workspace"),
        (lambda one: setattr(one.changes[0], "replaces", "x"), "replaces of 'a.md' must be 32"),
        (lambda one: setattr(document(one).summary, "content_hash", ""), "content_hash must be 32"),
        (lambda one: setattr(document(one).summary, "size_bytes", 1 << 40), "size_bytes is 1099511627776"),
        (lambda one: setattr(document(one).summary, "kind", "k" * 129), "kind has 129 characters"),
        (lambda one: setattr(document(one).summary, "title", "a\0b"), "title must not hold NUL"),
        (lambda one: setattr(document(one), "body", "x" * ((1 << 20) + 1)), "body has 1048577 characters"),
        (lambda one: setattr(document(one), "front_matter_json", b"[]"), "must be a JSON object"),
        (lambda one: setattr(document(one), "front_matter_json", b"\xff"), "not UTF-8"),
        (lambda one: setattr(document(one), "body", "x" * (9 << 20)), "at most 8388608 are allowed"),
        (_many_properties, "at most 256 are allowed"),
        (_many_links, "at most 2048 are allowed"),
        (_two_wishes, "must want a path or a name, not both"),
        (lambda one: setattr(document(one).links[0], "kind", 0), "a link's kind is 0"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(
    spoil: Callable[[pb.ChangeDocumentsRequest], None], reason: str
) -> None:
    spoilt = request()
    spoil(spoilt)
    with pytest.raises(InvalidRequest, match=reason):
        checked_changes(spoilt)


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (pb.SourceClaim(), "source must be 32 hexadecimal digits; got ''"),
        (pb.SourceClaim(source="A" * 32), "source must be 32 hexadecimal digits"),
        (pb.SourceClaim(source="a" * 32, label="x" * 1025), "label has 1025 characters; at most 1024"),
        (pb.SourceClaim(source="a" * 32, label="a\0b"), "label must not hold NUL"),
    ],
)
def test_a_claim_out_of_its_bounds_is_refused_by_name(claim: pb.SourceClaim, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        checked_claim(pb.ChangeDocumentsRequest(workspace="w", claim=claim))


def test_a_claim_comes_over_the_wire_as_it_was() -> None:
    claim = Claim("a" * 32, "laptop:/notes", 7, take_over=True)
    assert checked_claim(pb.ChangeDocumentsRequest(workspace="w", claim=claim_to_wire(claim))) == claim
    assert checked_claim(request()) is None
