"""What changes of documents from outside must satisfy before anything is done with them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson

from agent_core.errors import InvalidRequest
from agent_core.rpc.workspace_pb2 import ChangeDocumentsRequest
from agent_core.workspace import document as limits
from agent_core.workspace.document import Document, DocumentChange
from agent_core.workspace.names import MAX_PATH_BYTES, check_path, check_workspace
from agent_core.workspace.source import MAX_LABEL_CHARACTERS, Claim
from agent_core.workspace.wire import change_from_wire, claim_from_wire

MAX_CHANGES = 256
MAX_CHANGES_BYTES = 8 << 20
MAX_FRONT_MATTER_JSON_BYTES = 8 * limits.MAX_FRONT_MATTER_BYTES
"""JSON's escapes and quotes make more of it than YAML had."""

_HASH = re.compile(r"[0-9a-f]{32}")


def checked_changes(request: ChangeDocumentsRequest) -> list[DocumentChange]:
    """The changes that a request asks for, checked.

    Raises:
        InvalidRequest: Naming the field and its limit.
    """
    check_workspace(request.workspace)
    if len(request.changes) > MAX_CHANGES:
        raise InvalidRequest(f"a request has {len(request.changes)} changes; at most {MAX_CHANGES} are allowed")
    size = request.ByteSize()
    if size > MAX_CHANGES_BYTES:
        raise InvalidRequest(f"a request of changes has {size} bytes; at most {MAX_CHANGES_BYTES} are allowed")
    return [_checked(change_from_wire(change)) for change in request.changes]


def checked_claim(request: ChangeDocumentsRequest) -> Claim | None:
    """The claim that a request's changes come with, checked.

    Raises:
        InvalidRequest: Naming the field and its limit.
    """
    if not request.HasField("claim"):
        return None
    claim = claim_from_wire(request.claim)
    if not _HASH.fullmatch(claim.source):
        raise InvalidRequest(f"a claim's source must be 32 hexadecimal digits; got {claim.source[:40]!r}")
    for problem in _text_problems("a claim's label", claim.label, MAX_LABEL_CHARACTERS):
        raise InvalidRequest(problem)
    return claim


def _checked(change: DocumentChange) -> DocumentChange:
    check_path(change.path)
    if change.replaces and not _HASH.fullmatch(change.replaces):
        raise InvalidRequest(f"replaces of {change.path!r} must be 32 hexadecimal digits or empty")
    if change.document is not None:
        for problem in _problems(change.document):
            raise InvalidRequest(f"document {change.path!r}: {problem}")
    return change


def _problems(document: Document) -> Iterator[str]:
    if not _HASH.fullmatch(document.content_hash):
        yield f"content_hash must be 32 hexadecimal digits; got {document.content_hash[:40]!r}"
    if document.size_bytes > limits.MAX_DOCUMENT_BYTES:
        yield f"size_bytes is {document.size_bytes}; at most {limits.MAX_DOCUMENT_BYTES} are allowed"
    yield from _text_problems("kind", document.kind, limits.MAX_KIND_CHARACTERS)
    yield from _text_problems("title", document.title, limits.MAX_TITLE_CHARACTERS)
    yield from _text_problems("problem", document.problem, limits.MAX_PROBLEM_CHARACTERS)
    yield from _text_problems("body", document.body, limits.MAX_DOCUMENT_BYTES)
    yield from _text_problems("front_matter_json", document.front_matter_json, MAX_FRONT_MATTER_JSON_BYTES)
    try:
        is_object = isinstance(orjson.loads(document.front_matter_json), dict)
    except orjson.JSONDecodeError:
        is_object = False
    if not is_object:
        yield "front_matter_json must be a JSON object"
    if len(document.properties) > limits.MAX_PROPERTIES:
        yield f"has {len(document.properties)} properties; at most {limits.MAX_PROPERTIES} are allowed"
    for name, value in document.properties:
        yield from _text_problems("a property's name", name, limits.MAX_PROPERTY_NAME_CHARACTERS)
        yield from _text_problems(f"property {name[:40]!r}", value, limits.MAX_PROPERTY_VALUE_CHARACTERS)
    if len(document.links) > limits.MAX_LINKS:
        yield f"has {len(document.links)} links; at most {limits.MAX_LINKS} are allowed"
    for link in document.links:
        yield from _text_problems("a link's target", link.target, limits.MAX_LINK_CHARACTERS)
        yield from _text_problems("a link's label", link.label, limits.MAX_LINK_CHARACTERS)
        yield from _text_problems("a link's wanted_path", link.wanted_path or "", MAX_PATH_BYTES)
        yield from _text_problems("a link's wanted_name", link.wanted_name or "", MAX_PATH_BYTES)
        if link.wanted_path and link.wanted_name:
            yield f"the link {link.target[:40]!r} must want a path or a name, not both"


def _text_problems(field: str, text: str, most: int) -> Iterator[str]:
    if len(text) > most:
        yield f"{field} has {len(text)} characters; at most {most} are allowed"
    if "\0" in text:
        yield f"{field} must not hold NUL"
