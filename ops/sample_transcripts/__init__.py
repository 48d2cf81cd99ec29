"""Sample transcripts, written for Headwater: what the demo imports, one session or more of each known format."""

from __future__ import annotations

from pathlib import Path

_SUFFIXES = (".jsonl", ".traj")


def sample_paths() -> list[Path]:
    """The sample files, in the order of their names."""
    return sorted(path for path in Path(__file__).parent.iterdir() if path.suffix in _SUFFIXES)
