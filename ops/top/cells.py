"""Columns and cells of the tables: what a row shows on a screen of some width. Pure.

Names and titles come from outside: whatever would steer the terminal is spelled out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rich.text import Text

from ops.cli.plain_text import plain
from ops.cli.tables import duration
from ops.top.history import LAG_SAMPLES
from ops.top.rows import GroupRow, SessionRow, Summary

BARS = "▁▂▃▄▅▆▇█"
BAR_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Where one bar ends and the next begins: the same for all rows, so that they can be compared."""
TROUBLED_SECONDS = 3.0
NODE_CHARACTERS = 8
MIN_BARS = 11
DETAIL_BARS = 40
GAP = 2
"""Columns of the screen that DataTable puts around a cell."""

GROUP_COLORS = {"primary": "bold green", "standby": "cyan", "reader": "blue"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of nodes.

    Attributes:
        name: Its heading.
        width: In characters.
        cell: What a row shows in it.
        right: Whether it is a number, which stands at the right edge.
    """

    name: str
    width: int
    cell: Callable[[GroupRow], Text]
    right: bool = False


def sparkline(lags: Sequence[float | None], width: int) -> Text:
    """The newest `width` lags as bars: from 10 ms or less to more than 10 s in steps of about three."""
    bars = Text(" " * max(0, width - len(lags)))
    for seconds in lags[-width:]:
        if seconds is None:
            bars.append(" ")
            continue
        step = sum(seconds > bound for bound in BAR_SECONDS)
        bars.append(BARS[step], "green" if step < 3 else "yellow" if step < 6 else "red")
    return bars


def columns(width: int, longest_name: int) -> list[Column]:
    """As many columns as the screen is wide enough for; the lag's history takes what is left.

    Args:
        width: Of the screen.
        longest_name: Characters of the longest name of a node.
    """
    others = list(_COLUMNS)
    taken = NODE_CHARACTERS + GAP + MIN_BARS + GAP + sum(column.width + GAP for column in others)
    for name in _DISPENSABLE:
        if taken <= width:
            break
        omitted = next(column for column in others if column.name == name)
        others.remove(omitted)
        taken -= omitted.width + GAP
    longer_name = max(0, min(longest_name - NODE_CHARACTERS, width - taken))
    node = replace(_NODE, width=NODE_CHARACTERS + longer_name)
    left = width - taken - longer_name + MIN_BARS
    bars = max(MIN_BARS, min(left, LAG_SAMPLES))
    history = Column("lag history", bars, lambda row: sparkline(row.lags, bars))
    after_lag = [column.name for column in others].index("lag") + 1
    return [node, *others[:after_lag], history, *others[after_lag:]]


def group_cells(row: GroupRow, shown: Sequence[Column]) -> list[Text]:
    """A row's cells; dim where they only tell how it once was."""
    cells = []
    for column in shown:
        cell = column.cell(row)
        cell.truncate(column.width, overflow="ellipsis")
        if column.right:
            cell.align("right", column.width)
        if row.stale and column.name not in {"state", "heard", "node"}:
            cell.stylize("dim")
        cells.append(cell)
    return cells


def session_columns(width: int) -> list[tuple[str, int]]:
    """Headings and widths of the table of sessions: the title takes what is left."""
    fixed = [("entries/s", 9), ("entries", 8), ("workspace", 12)]
    if width >= 110:
        fixed.append(("session", 36))
    left = width - sum(wide + GAP for _, wide in fixed) - GAP - 1
    return [*fixed, ("title", max(10, left))]


def session_cells(row: SessionRow, shown: Sequence[tuple[str, int]]) -> list[Text]:
    """A session's cells."""
    values = {
        "entries/s": Text("" if row.entries_per_second is None else f"{row.entries_per_second:,.1f}"),
        "entries": Text(f"{row.entries:,}"),
        "workspace": Text(_line(row.workspace)),
        "session": Text(_line(row.session_id), "dim"),
        "title": Text(_line(row.title) or "(no title)"),
    }
    cells = []
    for name, width in shown:
        cell = values[name]
        cell.truncate(width, overflow="ellipsis")
        if name.startswith("entries"):
            cell.align("right", width)
        cells.append(cell)
    return cells


def summary_lines(told: Summary, *, paused_seconds: float | None, width: int) -> Text:
    """What stands above the tables: the cluster, its rate and what is wrong, a line each."""
    head = Text.assemble((f"cluster {_line(told.cluster)}" if told.cluster else "no node answers", "bold"))
    rate = "–" if told.appends_per_second is None else f"{told.appends_per_second:,.0f}"
    second = Text.assemble((f"{rate} appends/s", "bold cyan"))
    second.append(f"   {told.nodes - len(told.silent)} of {told.nodes} nodes answer", "red" if told.silent else "")
    leader = f"Raft leader {_line(told.raft_leader)}" if told.raft_leader else "no Raft leader"
    second.append(f"   {leader}", "" if told.raft_leader else "yellow")
    if told.draining:
        second.append(f"   draining: {_line(', '.join(told.draining))}", "yellow")
    if paused_seconds is not None:
        head.append(f"   PAUSED {duration(paused_seconds)} ago", "bold yellow")
    problems = Text(_line(told.problems[0]) if told.problems else "", "red")
    if len(told.problems) > 1:
        more = f"  (and {len(told.problems) - 1} more: Enter on a node)"
        problems.truncate(max(20, width - len(more)), overflow="ellipsis")
        problems.append(more, "red")
    lines = [head, second, problems]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines)


def details(rows: Sequence[GroupRow], told: Sequence[tuple[str, str]]) -> Text:
    """A node in full.

    Args:
        rows: The node's rows.
        told: What it says of itself, each fact with its name.
    """
    assert rows, "every node has a row"
    text = Text(_line(rows[0].node_id), "bold")
    heard = "it never answered" if rows[0].heard_seconds is None else f"heard {duration(rows[0].heard_seconds)} ago"
    text.append(f"   {heard}\n", "not bold red" if rows[0].stale else "not bold green")
    width = max((len(name) for name, _ in told), default=0)
    for name, value in told:
        text.append(f"\n{name:<{width}}  ", "dim")
        text.append(_line(value), "red" if name.startswith("not ") else "")
    for row in rows:
        if row.group is None:
            continue
        text.append(f"\n\ngroup {row.group}  ", "bold")
        text.append(f"{_line(row.role)} in epoch {row.epoch}, {_line(row.state)}", GROUP_COLORS.get(row.role, ""))
        text.append(
            f"\n  durable {row.durable_lsn:,}  committed {row.committed_lsn:,}  applied {row.applied_lsn:,}"
            f"\n  log {_megabytes(row.log_bytes)}  WAL {_megabytes(row.wal_bytes)}"
        )
        if row.lag_seconds is not None and row.lag_transactions is not None:
            text.append(f"\n  behind by {row.lag_transactions:,} transactions, {duration(row.lag_seconds)}  ")
            text.append_text(sparkline(row.lags, min(len(row.lags), DETAIL_BARS)))
        if row.appends_per_second is not None:
            text.append(f"\n  {row.appends_per_second:,.0f} appends/s")
    return text


def _line(text: str) -> str:
    return " ".join(plain(text).split())


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _number(value: int | None) -> Text:
    return Text("" if value is None else f"{value:,}")


def _of_group(row: GroupRow, text: str) -> Text:
    return Text("" if row.group is None else text)


def _lag(row: GroupRow) -> Text:
    if row.lag_seconds is None:
        return Text()
    return Text(duration(row.lag_seconds), "red" if row.lag_seconds > TROUBLED_SECONDS else "")


def _rate(row: GroupRow) -> Text:
    return Text("" if row.appends_per_second is None else f"{row.appends_per_second:,.0f}")


def _heard(row: GroupRow) -> Text:
    if row.heard_seconds is None:
        return Text("never", "red")
    seconds = row.heard_seconds
    return Text(f"{seconds:.0f} s" if seconds < 100 else duration(seconds), "red" if row.stale else "dim")


_NODE = Column("node", NODE_CHARACTERS, lambda row: Text(_line(row.node_id), "bold red" if row.stale else "bold"))
_COLUMNS = (
    Column("group", 5, lambda row: _number(row.group), right=True),
    Column("role", 7, lambda row: Text(_line(row.role), GROUP_COLORS.get(row.role, ""))),
    Column("position", 9, lambda row: _of_group(row, f"{row.epoch}:{row.applied_lsn}")),
    Column("epoch", 5, lambda row: _of_group(row, str(row.epoch)), right=True),
    Column("durable", 10, lambda row: _of_group(row, f"{row.durable_lsn:,}"), right=True),
    Column("committed", 10, lambda row: _of_group(row, f"{row.committed_lsn:,}"), right=True),
    Column("applied", 10, lambda row: _of_group(row, f"{row.applied_lsn:,}"), right=True),
    Column("behind", 7, lambda row: _number(row.lag_transactions), right=True),
    Column("lag", 6, _lag, right=True),
    Column("appends/s", 9, _rate, right=True),
    Column("WAL", 8, lambda row: _of_group(row, _megabytes(row.wal_bytes)), right=True),
    Column("log", 9, lambda row: _of_group(row, _megabytes(row.log_bytes)), right=True),
    Column("state", 11, lambda row: Text(_line(row.state), "bold red" if row.troubled else "dim")),
    Column("heard", 6, _heard, right=True),
)
_DISPENSABLE = ("log", "WAL", "committed", "behind", "durable", "applied", "epoch", "appends/s")
"""What a narrow screen goes without, the first one first; epoch and applied lsn stand in the position too."""

assert all(low < high for low, high in pairwise(BAR_SECONDS))
