"""What comes in is checked before anything is done with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_core.errors import InvalidRequest
from agent_core.rpc.session_pb2 import AppendRequest
from agent_core.transcripts import ImportedEntry, read_transcript
from primary.checks import WriteChecks

KINDS = ["message", "ToolExecution", "x", "Custom.v2-beta_1", "k" * 64]
NO_KINDS = ["", "2nd", "two words", "k" * 65, "küche", "-x", "message\n"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_of_any_kind_that_an_importer_keeps_is_accepted(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(f'{{"kind":"{kind}","payload":{{}}}}\n')
    (imported,) = [found for found in read_transcript(file) if isinstance(found, ImportedEntry)]
    assert imported.kind == kind
    request = AppendRequest(session_id="a", kind=imported.kind, payload_json=imported.payload)
    assert WriteChecks().entry(request).kind == kind


@pytest.mark.parametrize("kind", NO_KINDS)
def test_what_is_no_kind_is_refused_by_name_and_value(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="kind must be 1 to 64 letters"):
        WriteChecks().entry(AppendRequest(session_id="a", kind=kind, payload_json=b"{}"))
