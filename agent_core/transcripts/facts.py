"""What a file tells about its sessions, gathered before their entries are given out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agent_core.transcripts.imported import MAX_SESSIONS, ImportedSession, UnreadableTranscript


@dataclass(slots=True)
class SessionFacts:
    """One session, as far as it is known; of each fact the first that is told counts.

    Attributes:
        opening: The first words of the user: the title, if nothing gives another.
    """

    workspace: str = ""
    title: str = ""
    opening: str = ""
    provider: str = ""
    model: str = ""
    parent_session_id: str = ""
    created_at_ms: int = 0
    metadata: dict[str, object] = field(default_factory=dict)

    def as_session(self, session_id: str) -> ImportedSession:
        """The session to be created."""
        return ImportedSession(
            session_id=session_id,
            workspace=self.workspace,
            title=self.title or self.opening,
            provider=self.provider,
            model=self.model,
            parent_session_id=self.parent_session_id,
            created_at_ms=self.created_at_ms,
            metadata=self.metadata,
        )


class SessionTable:
    """The sessions of one file.

    Raises:
        UnreadableTranscript: On a session past `MAX_SESSIONS`.
    """

    def __init__(self, path: Path, format_name: str) -> None:
        self._path = path
        self._format = format_name
        self._facts: dict[str, SessionFacts] = {}

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._facts

    def of(self, session_id: str) -> SessionFacts:
        """The facts of a session, empty ones for a new session."""
        facts = self._facts.get(session_id)
        if facts is None:
            if len(self._facts) >= MAX_SESSIONS:
                raise UnreadableTranscript(f"{self._path} holds more than {MAX_SESSIONS} sessions; split the file")
            facts = self._facts[session_id] = SessionFacts(metadata={"format": self._format})
        return facts
