"""The JSON of documents over HTTP, as the OpenAPI page shows it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from replica.reading.http_models import GroupPositionModel


class DocumentSummaryModel(BaseModel):
    """One document as lists show it; the time in milliseconds since the epoch (1970)."""

    path: str
    kind: str
    title: str
    problem: str = Field(description="What of it could not be indexed, with the line; empty: nothing.")
    content_hash: str
    size_bytes: int
    updated_at_ms: int = Field(description="When the index changed.")
    snippet: str = Field(description="Around a word that was looked for; empty in other lists.")


class PropertyModel(BaseModel):
    """One value of the front matter; a list makes several of one name."""

    name: str
    value: str


class LinkModel(BaseModel):
    """One link of a document."""

    kind: str = Field(description="document, wiki, file or external")
    target: str = Field(description="As it is written.")
    label: str
    wanted_path: str | None = Field(description="The document that it asks for, if by path.")
    wanted_name: str | None = Field(description="The document that it asks for, if by name.")
    target_path: str | None = Field(description="The document that it leads to; null while there is none.")


class DocumentModel(DocumentSummaryModel):
    """One document, all of it."""

    front_matter: dict[str, Any]
    body: str
    properties: list[PropertyModel]
    links: list[LinkModel]


class DocumentsResponse(BaseModel):
    """One page of documents, by path, or with the best first when words are looked for."""

    documents: list[DocumentSummaryModel]
    next_page_token: str = Field(description="Continues the list; empty: no further page.")
    position: GroupPositionModel


class DocumentResponse(BaseModel):
    """One document."""

    document: DocumentModel
    position: GroupPositionModel
