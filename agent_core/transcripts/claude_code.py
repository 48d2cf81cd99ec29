"""Claude Code session logs: JSON Lines, one record a line, several sessions in one file possible.

What becomes of a record:

- `user` and `assistant` records become `message` entries; one whose content is a single tool result gets the role
  `tool_result`. The summary that Claude Code continues with after it compacted its context becomes a `compaction`.
- Every other record (system, summary, file-history-snapshot, queue-operation, attachment, whatever comes next)
  becomes a `custom` entry whose `customType` is the record's type.
- A sub-agent's records (`isSidechain` with an `agentId`) become a session of their own whose parent is the one that
  started it, as they would else run through the parent's transcript line by line. Older logs name no agent: there
  such records stay in the session, marked with `sidechain: true`.
- A record without `sessionId` belongs to the session of the record before it; at the top of a file, to the file's
  first session; in a file that names none, to one named after the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from agent_core.transcripts.facts import SessionFacts, SessionTable
from agent_core.transcripts.fields import last_component, mapping, one_line, string, timestamp_ms, title
from agent_core.transcripts.identity import EntryKeys, child_session_id, session_id_from, session_id_of_file
from agent_core.transcripts.imported import ImportedEntry, ImportedSession
from agent_core.transcripts.lines import Line, Record
from agent_core.transcripts.messages import MessagePayloads, first_text
from agent_core.transcripts.payloads import encode_payload

FORMAT = "claude-code"
PROVIDER = "anthropic"

MAX_SUMMARIES = 1000
"""Summaries whose session is looked for; of more, the newest."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NOT_WHAT_THE_USER_ASKED = ("<", "Caveat:", "[Request interrupted")
"""How the texts begin that Claude Code itself writes in the user's name."""


def is_claude_code(record: Record) -> bool:
    """Whether a record is one of Claude Code's."""
    if not string(record, "type"):
        return False
    if string(record, "sessionId"):
        return True
    match record["type"]:
        case "user" | "assistant" | "system":
            return bool(string(record, "uuid")) and "parentUuid" in record
        case "summary":
            return bool(string(record, "leafUuid"))
        case "file-history-snapshot":
            return "snapshot" in record
    return False


class ClaudeCodeLog:
    """One log, read twice: `observe` each line, then take each line's `entry`.

    A session's title and model can stand at the end of the log, and a session is created before its entries.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sessions = SessionTable(path, FORMAT)
        self._keys = EntryKeys(FORMAT)
        self._messages = MessagePayloads()
        self._current = ""
        self._summaries: dict[str, str] = {}
        self._session_of_uuid: dict[int, str] = {}  # by the hash of the uuid, which takes less memory

    def observe(self, line: Line) -> None:
        """Learn what a line tells about its session."""
        record = line.record
        if record.get("type") == "summary":
            self._observe_summary(string(record, "leafUuid"), string(record, "summary"))
        name = string(record, "sessionId")
        if not name:
            return
        session_id = session_id_from(name)
        self._current = self._current or session_id
        agent = _agent(record)
        if agent:
            child = child_session_id(session_id, agent)
            self._sessions.of(child).parent_session_id = session_id
            self._sessions.of(child).metadata["agent_id"] = one_line(agent)
            session_id = child
        elif uuid := string(record, "uuid"):
            self._session_of_uuid[hash(uuid)] = session_id
        _learn(self._sessions.of(session_id), record, in_sub_agent=bool(agent))

    def observed(self) -> None:
        """Every line was observed: settle which session each summary is about, it may be none of this file."""
        for leaf, summary in self._summaries.items():
            session_id = self._session_of_uuid.get(hash(leaf))
            if session_id is not None and not self._sessions.of(session_id).title:
                self._sessions.of(session_id).title = title(summary)
        self._session_of_uuid.clear()

    def session(self, session_id: str) -> ImportedSession:
        """The session of an entry that was taken."""
        return self._sessions.of(session_id).as_session(session_id)

    def entry(self, line: Line) -> ImportedEntry:
        """The entry that a line becomes; lines are taken in order."""
        record = line.record
        session_id = self._session_of(line)
        kind, payload = self._payload(record)
        if string(record, "uuid"):
            key = self._keys.of_identified(session_id, line.raw)
        else:
            key = self._keys.of_placed(session_id, line.number, line.raw)
        return ImportedEntry(
            session_id, kind, encode_payload(payload, line.raw), timestamp_ms(record, "timestamp"), key, line.number
        )

    def _session_of(self, line: Line) -> str:
        name = string(line.record, "sessionId")
        if name:
            self._current = session_id_from(name)
            agent = _agent(line.record)
            return child_session_id(self._current, agent) if agent else self._current
        if not self._current:
            # Claude Code names its files after their session, so the session's records will join these.
            stem = self._path.stem
            self._current = stem if _UUID.fullmatch(stem) else session_id_of_file(self._path, line.raw)
        return self._current

    def _payload(self, record: Record) -> tuple[str, dict[str, object]]:
        kind = string(record, "type")
        message = record.get("message")
        if kind not in ("user", "assistant") or not isinstance(message, dict):
            return "custom", {"customType": kind or "unknown"}
        payload = self._messages.payload(message, role=kind)
        if record.get("isCompactSummary") is True:
            return "compaction", {"summary": first_text(payload)}
        if payload["role"] == "assistant":
            payload["provider"] = PROVIDER
        if record.get("isSidechain") is True and not _agent(record):
            payload["sidechain"] = True
        return "message", payload

    def _observe_summary(self, leaf: str, summary: str) -> None:
        self._summaries.pop(leaf, None)
        self._summaries[leaf] = summary
        if len(self._summaries) > MAX_SUMMARIES:
            del self._summaries[next(iter(self._summaries))]


def _agent(record: Record) -> str:
    return string(record, "agentId") if record.get("isSidechain") is True else ""


def _learn(facts: SessionFacts, record: Record, *, in_sub_agent: bool) -> None:
    kind = string(record, "type")
    message = mapping(record, "message")
    facts.created_at_ms = facts.created_at_ms or timestamp_ms(record, "timestamp")
    facts.workspace = facts.workspace or last_component(string(record, "cwd"))
    for name, source in (("cwd", "cwd"), ("git_branch", "gitBranch"), ("version", "version")):
        if value := string(record, source):
            facts.metadata.setdefault(name, one_line(value))
    if given := string(record, "customTitle"):
        # A user may rename a session again and again: the last name is the one to show.
        facts.title = title(given)
    if kind == "assistant" and not facts.model:
        model = string(message, "model")
        # Claude Code's own error messages come from the model "<synthetic>".
        if model and not model.startswith("<"):
            facts.model, facts.provider = one_line(model), PROVIDER
    if kind == "user" and not facts.opening and (in_sub_agent or record.get("isSidechain") is not True):
        facts.opening = title(_asked(record, message))


def _asked(record: Record, message: Mapping[str, object]) -> str:
    if record.get("isMeta") is True or record.get("isCompactSummary") is True:
        return ""
    text = first_text(message)
    return "" if text.lstrip().startswith(_NOT_WHAT_THE_USER_ASKED) else text
