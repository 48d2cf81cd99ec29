"""Documents and their changes as they are sent."""

from __future__ import annotations

from agent_core.errors import InvalidRequest
from agent_core.rpc import workspace_pb2 as pb
from agent_core.workspace.document import ChangeOutcome, Document, DocumentChange, Link, LinkKind, Property
from agent_core.workspace.source import Claim
from agent_core.workspace.stored import DocumentSummary, StoredDocument, StoredLink

_LINK_KINDS: dict[LinkKind, pb.LinkKind.ValueType] = {
    LinkKind.DOCUMENT: pb.LINK_KIND_DOCUMENT,
    LinkKind.WIKI: pb.LINK_KIND_WIKI,
    LinkKind.FILE: pb.LINK_KIND_FILE,
    LinkKind.EXTERNAL: pb.LINK_KIND_EXTERNAL,
}
CHANGE_OUTCOMES: dict[ChangeOutcome, pb.ChangeOutcome.ValueType] = {
    ChangeOutcome.APPLIED: pb.CHANGE_OUTCOME_APPLIED,
    ChangeOutcome.UNCHANGED: pb.CHANGE_OUTCOME_UNCHANGED,
    ChangeOutcome.CONFLICT: pb.CHANGE_OUTCOME_CONFLICT,
}
_LINK_KINDS_BY_NUMBER = {number: kind for kind, number in _LINK_KINDS.items()}
_OUTCOMES_BY_NUMBER = {number: outcome for outcome, number in CHANGE_OUTCOMES.items()}


def change_to_wire(change: DocumentChange) -> pb.DocumentChange:
    """A change as it is sent."""
    document = None if change.document is None else _document_to_wire(change.document)
    return pb.DocumentChange(path=change.path, replaces=change.replaces, document=document)


def change_from_wire(change: pb.DocumentChange) -> DocumentChange:
    """A change as it came; its texts are not checked.

    Raises:
        InvalidRequest: It is written in a way that this version does not know.
    """
    document = _document_from_wire(change.path, change.document) if change.HasField("document") else None
    return DocumentChange(change.path, change.replaces, document)


def claim_to_wire(claim: Claim) -> pb.SourceClaim:
    """A source's claim as it is sent."""
    return pb.SourceClaim(**claim._asdict())


def claim_from_wire(claim: pb.SourceClaim) -> Claim:
    """A source's claim as it came; its texts are not checked."""
    return Claim(claim.source, claim.label, claim.epoch, claim.take_over)


def outcome_from_wire(number: pb.ChangeOutcome.ValueType) -> ChangeOutcome:
    """What became of a change; what this version does not know counts as a conflict: the caller looks again."""
    return _OUTCOMES_BY_NUMBER.get(number, ChangeOutcome.CONFLICT)


def summary_to_wire(summary: DocumentSummary) -> pb.DocumentSummary:
    """What lists show of a document, as it is sent."""
    return pb.DocumentSummary(**summary._asdict())


def summary_from_wire(summary: pb.DocumentSummary) -> DocumentSummary:
    """What lists show of a document, as it came."""
    return DocumentSummary(*(getattr(summary, field) for field in DocumentSummary._fields))


def stored_to_wire(document: StoredDocument) -> pb.Document:
    """A document of the index as it is sent."""
    return pb.Document(
        summary=summary_to_wire(document.summary),
        front_matter_json=document.front_matter_json,
        body=document.body,
        properties=[pb.DocumentProperty(name=one.name, value=one.value) for one in document.properties],
        links=[_link_to_wire(link, link.target_path) for link in document.links],
    )


def stored_from_wire(document: pb.Document) -> StoredDocument:
    """A document of the index as it came.

    Raises:
        InvalidRequest: It is written in a way that this version does not know.
    """
    return StoredDocument(
        summary_from_wire(document.summary),
        document.front_matter_json,
        document.body,
        [Property(one.name, one.value) for one in document.properties],
        [
            StoredLink(
                _link_kind_from_wire(link.kind),
                link.target,
                link.label,
                link.wanted_path or None,
                link.wanted_name or None,
                link.target_path or None,
            )
            for link in document.links
        ],
    )


def _link_kind_from_wire(number: pb.LinkKind.ValueType) -> LinkKind:
    """A kind of link.

    Raises:
        InvalidRequest: No kind has this number.
    """
    kind = _LINK_KINDS_BY_NUMBER.get(number)
    if kind is None:
        raise InvalidRequest(f"a link's kind is {number}; allowed are {sorted(_LINK_KINDS_BY_NUMBER)}")
    return kind


def _link_to_wire(link: Link | StoredLink, target_path: str | None = None) -> pb.DocumentLink:
    return pb.DocumentLink(
        kind=_LINK_KINDS[link.kind],
        target=link.target,
        label=link.label,
        wanted_path=link.wanted_path or "",
        wanted_name=link.wanted_name or "",
        target_path=target_path or "",
    )


def _document_to_wire(document: Document) -> pb.Document:
    return pb.Document(
        summary=pb.DocumentSummary(
            path=document.path,
            kind=document.kind,
            title=document.title,
            problem=document.problem,
            content_hash=document.content_hash,
            size_bytes=document.size_bytes,
        ),
        front_matter_json=document.front_matter_json.encode(),
        body=document.body,
        properties=[pb.DocumentProperty(name=one.name, value=one.value) for one in document.properties],
        links=[_link_to_wire(link) for link in document.links],
    )


def _document_from_wire(path: str, document: pb.Document) -> Document:
    summary = document.summary
    try:
        front_matter_json = document.front_matter_json.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"front_matter_json of {path!r} is not UTF-8") from error
    return Document(
        path=path,
        kind=summary.kind,
        title=summary.title,
        front_matter_json=front_matter_json,
        body=document.body,
        problem=summary.problem,
        content_hash=summary.content_hash,
        size_bytes=summary.size_bytes,
        properties=tuple(Property(one.name, one.value) for one in document.properties),
        links=tuple(
            Link(
                _link_kind_from_wire(link.kind),
                link.target,
                link.label,
                link.wanted_path or None,
                link.wanted_name or None,
            )
            for link in document.links
        ),
    )
