"""How old what the screen shows is, in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ops.dashboard.node_client.choice import STALE_SECONDS
from ops.dashboard.node_client.failures import ReadFailed

Level = Literal["good", "warning", "bad"]

STOPPED_SECONDS = 15.0
"""A page that renews itself and did not for so long has stopped."""

JUST_NOW_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a page shows, and since when; times in seconds since 1970.

    Attributes:
        node: The node that it was read from; empty before the first answer.
        age_seconds: How far that node was behind its primary.
        read_at: When it was read.
        renewing: Whether the page renews it by itself.
        moved_from: The node that was read before and stopped answering, with the reason; None: there was none.
        failure: Why the last attempt to read failed; None: it did not.
    """

    node: str = ""
    age_seconds: float = 0.0
    read_at: float = 0.0
    renewing: bool = True
    moved_from: tuple[str, str] | None = None
    failure: ReadFailed | None = None


def describe(shown: Freshness, now: float) -> tuple[Level, str, str]:
    """How good that is, one short line, and a longer one that explains it."""
    since = max(0.0, now - shown.read_at)
    if not shown.node:
        failure = shown.failure
        return ("bad", failure.title.lower(), str(failure)) if failure else ("warning", "reading …", "")
    if shown.failure or (shown.renewing and since > STOPPED_SECONDS):
        why = f"{shown.failure.title}: {shown.failure}" if shown.failure else "No further answer came."
        return "bad", f"as of {duration(since)} ago", f"{why} (This was read from {shown.node}.)"
    behind = shown.age_seconds
    read = "" if shown.renewing or since < JUST_NOW_SECONDS else f" · read {duration(since)} ago"
    text = f"{shown.node} · {'up to date' if behind < 1 else f'{duration(behind)} behind'}{read}"
    long = f"Read from {shown.node}, at most {behind:.1f} s behind the primary."
    if shown.moved_from is not None:
        long += f" Before it {shown.moved_from[0]} was read: {shown.moved_from[1]}."
    return ("warning" if behind > STALE_SECONDS else "good"), text, long


def duration(seconds: float) -> str:
    """A length of time as people say it: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    for limit, divisor, unit in ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds:.1f} {unit}" if unit == "s" and seconds < 10 else f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
