"""Reading the transcripts that coding agents leave behind, for import.

A file is recognised by what it holds, never by its name: Claude Code session logs, SWE-agent trajectories, and
plain JSON Lines. `read_transcript` turns it into sessions and entries whose ids and idempotency keys depend on
nothing but the content, so that importing a file twice adds nothing and a file that grew adds what is new.

    path ── recognise ──┬── claude_code ──┐
                        ├── swe_agent ────┼── ImportedSession, ImportedEntry, BrokenLine
                        └── json_lines ───┘
"""

from agent_core.transcripts.imported import BrokenLine, ImportedEntry, ImportedSession, UnreadableTranscript
from agent_core.transcripts.reading import read_transcript

__all__ = ["BrokenLine", "ImportedEntry", "ImportedSession", "UnreadableTranscript", "read_transcript"]
