"""Plain JSON Lines: one JSON object a line, from any agent.

What becomes of a record:

- `{"kind", "payload", …}`, with a name and an object, is an entry as it stands, of whatever kind it names.
- `{"role", "content", …}` is a chat message and becomes a `message` entry.
- Anything else becomes a `custom` entry.

Read beside these, where they are: `session_id` (or `sessionId`), `created_at` (or `created_at_ms`, `timestamp`),
`workspace` (or `cwd`), `title`, `provider`, `model`, `parent_session_id`. A record that names no session belongs to
one named after the file and its first record.
"""

from __future__ import annotations

from pathlib import Path

from agent_core.entry_kinds import is_kind
from agent_core.transcripts.facts import SessionFacts, SessionTable
from agent_core.transcripts.fields import last_component, mapping, one_line, string, timestamp_ms, title
from agent_core.transcripts.identity import EntryKeys, session_id_from, session_id_of_file
from agent_core.transcripts.imported import ImportedEntry, ImportedSession
from agent_core.transcripts.lines import Line, Record
from agent_core.transcripts.messages import MessagePayloads, first_text
from agent_core.transcripts.payloads import encode_payload

FORMAT = "json-lines"


class JsonLinesLog:
    """One file, read twice: `observe` each line, then take each line's `entry`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions = SessionTable(path, FORMAT)
        self._keys = EntryKeys(FORMAT)
        self._messages = MessagePayloads()
        self._session_of_file = ""

    def observe(self, line: Line) -> None:
        """Learn what a line tells about its session."""
        self._session_of_file = self._session_of_file or session_id_of_file(self._path, line.raw)
        _learn(self._sessions.of(self._session_of(line.record)), line.record)

    def observed(self) -> None:
        """Every line was observed."""

    def session(self, session_id: str) -> ImportedSession:
        """The session of an entry that was taken."""
        return self._sessions.of(session_id).as_session(session_id)

    def entry(self, line: Line) -> ImportedEntry:
        """The entry that a line becomes; lines are taken in order."""
        session_id = self._session_of(line.record)
        kind, payload = self._payload(line)
        created_at_ms = timestamp_ms(line.record, "created_at_ms", "created_at", "timestamp")
        key = self._keys.of_placed(session_id, line.number, line.raw)
        return ImportedEntry(session_id, kind, payload, created_at_ms, key, line.number)

    def _session_of(self, record: Record) -> str:
        for name in ("session_id", "sessionId"):
            value = record.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                return session_id_from(str(value))
        return self._session_of_file

    def _payload(self, line: Line) -> tuple[str, bytes]:
        record = line.record
        if _is_entry(record):
            return string(record, "kind"), encode_payload(mapping(record, "payload"))
        if _is_message(record):
            return "message", encode_payload(self._messages.payload(record), line.raw)
        return "custom", encode_payload({"customType": one_line(string(record, "type")) or "unknown"}, line.raw)


def _is_entry(record: Record) -> bool:
    return is_kind(string(record, "kind")) and isinstance(record.get("payload"), dict)


def _is_message(record: Record) -> bool:
    return bool(string(record, "role")) and ("content" in record or "tool_calls" in record)


def _learn(facts: SessionFacts, record: Record) -> None:
    message = mapping(record, "payload") if _is_entry(record) else record
    facts.created_at_ms = facts.created_at_ms or timestamp_ms(record, "created_at_ms", "created_at", "timestamp")
    facts.workspace = (
        facts.workspace or one_line(string(record, "workspace")) or last_component(string(record, "cwd"))
    )
    facts.title = facts.title or title(string(record, "title"))
    facts.provider = facts.provider or one_line(string(record, "provider") or string(message, "provider"))
    facts.model = facts.model or one_line(string(record, "model") or string(message, "model"))
    if not facts.parent_session_id and (parent := string(record, "parent_session_id")):
        facts.parent_session_id = session_id_from(parent)
    if not facts.opening and message.get("role") == "user":
        facts.opening = title(first_text(message))
