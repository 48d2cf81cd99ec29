"""The source that keeps a workspace, as a row of its shard, within the caller's transaction."""

from __future__ import annotations

from typing import NamedTuple

from agent_core.database.build import Connection
from agent_core.workspace.source import Claim, Keeper, is_admitted, keeper_after


class Hold(NamedTuple):
    """What became of a claim.

    Attributes:
        is_admitted: Changes that came with it may be made.
        keeper: Who keeps the workspace now; None: no source does.
    """

    is_admitted: bool
    keeper: Keeper | None


def hold(connection: Connection, workspace: str, claim: Claim | None, now_ms: int) -> Hold:
    """Let a claim's source keep the workspace, if it may."""
    row = connection.execute(
        "SELECT source, label, epoch, heard_at FROM workspace_sources WHERE workspace = ?", (workspace,)
    ).fetchone()
    keeper = None if row is None else Keeper(*row)
    if claim is None or not is_admitted(keeper, claim):
        return Hold(is_admitted(keeper, claim), keeper)
    keeper = keeper_after(keeper, claim, now_ms)
    connection.execute("INSERT OR REPLACE INTO workspace_sources VALUES (?,?,?,?,?)", (workspace, *keeper))
    return Hold(is_admitted=True, keeper=keeper)
