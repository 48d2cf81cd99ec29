"""Reads of documents, for both interfaces: arguments are checked here, positions waited for and reported."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from agent_core.errors import InvalidRequest
from agent_core.workspace.names import check_path, check_workspace
from agent_core.workspace.stored import DocumentSummary, StoredDocument
from replica.reading.freshness import NO_DEMAND, Demand
from replica.reading.positions import GroupPosition
from replica.reading.reading import Reading
from replica.reading.workspace import queries
from replica.reading.workspace.paging import decode_page_token, encode_page_token
from replica.reading.workspace.queries import DocumentFilter


class DocumentList(NamedTuple):
    """One page of documents; `next_page_token` continues the list, empty: no further page."""

    documents: list[DocumentSummary]
    next_page_token: str
    position: GroupPosition


class DocumentAnswer(NamedTuple):
    """One document, and the position that it was read at."""

    document: StoredDocument
    position: GroupPosition


class DocumentReading:
    """The documents of all workspaces on one node; raises as `Reading` does."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._shard = reading.layout.workspace_shard
        self.group = reading.layout.group_of(self._shard)

    async def documents(
        self,
        wanted: DocumentFilter,
        *,
        page_size: int = queries.DEFAULT_PAGE_SIZE,
        page_token: str = "",
        demand: Demand = NO_DEMAND,
    ) -> DocumentList:
        """One page of a workspace's documents: by path, or with the best first when words are looked for."""
        if not 1 <= page_size <= queries.MAX_PAGE_SIZE:
            raise InvalidRequest(f"page_size is {page_size}; allowed are 1 to {queries.MAX_PAGE_SIZE}")
        after = decode_page_token(page_token)
        read = partial(queries.documents, wanted=wanted, after=after, page_size=page_size)
        page, position = await self._reading.shard(self._shard, read, demand=demand)
        token = "" if page.next_key is None else encode_page_token(page.next_key)
        return DocumentList(page.documents, token, position)

    async def document(self, workspace: str, path: str, *, demand: Demand = NO_DEMAND) -> DocumentAnswer:
        """One document.

        Raises:
            DocumentNotFound: The workspace has none at this path, as far as this node has applied.
        """
        read = partial(queries.document, workspace=check_workspace(workspace), path=check_path(path))
        return DocumentAnswer(*await self._reading.shard(self._shard, read, demand=demand))
