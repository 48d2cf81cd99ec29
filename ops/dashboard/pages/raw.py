"""Entries as they are stored, as plain text: what is too large for the conversation is read here."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import FastAPI, Path
from fastapi.responses import PlainTextResponse

from ops.dashboard.cluster.watch import ClusterWatch
from ops.dashboard.node_client.failures import NodeRefused, ReadFailed
from ops.dashboard.node_client.reader import NodeReader
from ops.dashboard.paths import session_path
from replica.reading.http_models import TranscriptResponse

HEADERS = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "no-store"}
"""Nothing of it may run, even where a browser takes it for something else than text."""


def register(app: FastAPI, reader: NodeReader, _: ClusterWatch) -> None:
    """Add the route."""

    @app.get("/raw/{session_id}/{seq}")
    async def raw_entry(session_id: str, seq: Annotated[int, Path(ge=1)]) -> PlainTextResponse:
        parameters: dict[str, str | int] = {"after_seq": seq - 1, "limit": 1}
        try:
            answer = await reader.get(f"{session_path(session_id)}/transcript", TranscriptResponse, parameters)
        except NodeRefused as error:
            return PlainTextResponse(str(error), error.status if error.status >= 400 else 502, HEADERS)
        except ReadFailed as error:
            return PlainTextResponse(f"{error.title}: {error}", 503, HEADERS)
        entry = next(iter(answer.content.entries), None)
        if entry is None or entry.seq != seq:
            return PlainTextResponse(f"The session has no entry {seq}.", 404, HEADERS)
        try:
            text = json.dumps(entry.payload, ensure_ascii=False, indent=2)
        except RecursionError:
            return PlainTextResponse("The entry is nested too deeply to be written out.", 502, HEADERS)
        # A half of a surrogate pair is no text in UTF-8; a browser shows what stands for it.
        return PlainTextResponse(text.encode("utf-8", "replace"), 200, HEADERS)
