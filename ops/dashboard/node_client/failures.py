"""Why something could not be read, as pages tell it."""

from __future__ import annotations

from collections.abc import Mapping

UNREADABLE = "unreadable"
"""The code of an answer that is nested too deeply, or is no UTF-8."""


class ReadFailed(Exception):
    """Something could not be read; `title` says in a few words what kind of failure it is, the message why."""

    title = "This could not be read"


class NoNodeAnswers(ReadFailed):
    """No node could be read; `reasons` says for each why."""

    title = "No node answers"

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{node}: {reason}" for node, reason in reasons.items()) or "no node is known")
        self.reasons = dict(reasons)


class NodeRefused(ReadFailed):
    """A node refused the request, and so would any other: it is wrong, or what it names is not there.

    Attributes:
        status: The HTTP status.
        code: As `agent_core.errors` names it.
        node: Who refused it; empty where that is not known.
        age_seconds: How far that node was behind its primary.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.node = ""
        self.age_seconds = 0.0
        self.title = "This cannot be shown" if code == UNREADABLE else "The node refused this"


class DashboardBusy(ReadFailed):
    """The dashboard has as many connections to nodes as it allows itself; of the nodes it says nothing."""

    title = "The dashboard is busy"
