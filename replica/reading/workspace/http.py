"""Documents over HTTP and JSON."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from agent_core.errors import InvalidRequest
from agent_core.workspace.document import Property
from replica.reading.http import FAILURES
from replica.reading.http_freshness import Demanded, json_response, position_fields
from replica.reading.workspace import http_models as models
from replica.reading.workspace import queries
from replica.reading.workspace.queries import DocumentFilter
from replica.reading.workspace.reading import DocumentReading

DOCUMENT_FAILURES = {**FAILURES, 404: {**FAILURES[404], "description": "No document at this path."}}

Workspace = Annotated[str, Path(examples=["web"])]


def document_routes(reading: DocumentReading) -> APIRouter:
    """The routes `/v1/workspaces/…`; what `reading_routes` asks of the application holds for these too."""
    routes = APIRouter(
        prefix="/v1/workspaces/{workspace}/documents", responses=DOCUMENT_FAILURES, tags=["workspaces"]
    )

    @routes.get("", response_model=models.DocumentsResponse)
    async def list_documents(
        *,
        workspace: Workspace,
        kind: str = "",
        has_property: Annotated[
            list[str] | None,
            Query(alias="property", description="name=value; several: all of them.", examples=[["status=open"]]),
        ] = None,
        path_prefix: str = "",
        links_to: Annotated[str, Query(description="Path of a document that they link to.")] = "",
        linked_from: Annotated[str, Query(description="Path of a document that links to them.")] = "",
        text: Annotated[str, Query(description='Words that all occur; "a phrase"; begin*.')] = "",
        page_size: Annotated[int, Query(ge=1, le=queries.MAX_PAGE_SIZE)] = queries.DEFAULT_PAGE_SIZE,
        page_token: Annotated[str, Query(description="next_page_token of the page before.")] = "",
        demanded: Demanded,
    ) -> Response:
        """Documents of a workspace, by path, or with the best first when `text` is looked for."""
        page = await reading.documents(
            DocumentFilter(
                workspace, kind, _properties(has_property or ()), path_prefix, links_to, linked_from, text
            ),
            page_size=page_size,
            page_token=page_token,
            demand=demanded.of([reading.group]),
        )
        body = {
            "documents": [summary._asdict() for summary in page.documents],
            "next_page_token": page.next_page_token,
            "position": position_fields(page.position),
        }
        return json_response(body, [page.position])

    @routes.get("/{path:path}", response_model=models.DocumentResponse)
    async def get_document(workspace: Workspace, path: str, demanded: Demanded) -> Response:
        """One document: its text, front matter, properties, and links with where they lead."""
        answer = await reading.document(workspace, path, demand=demanded.of([reading.group]))
        body = {"document": answer.document.fields(), "position": position_fields(answer.position)}
        return json_response(body, [answer.position])

    return routes


def _properties(texts: list[str] | tuple[()]) -> tuple[Property, ...]:
    properties = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"property is written name=value, for example status=open; got {text[:80]!r}")
        properties.append(Property(name, value))
    return tuple(properties)
