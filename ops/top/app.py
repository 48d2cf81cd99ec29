"""The terminal: draws rows, and turns keys into what is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from ops.cli.tables import duration
from ops.top import cells
from ops.top.history import FRESH_SECONDS, ClusterHistory
from ops.top.polling import SESSIONS_SECONDS
from ops.top.rows import (
    GroupRow,
    Order,
    SessionRow,
    Summary,
    group_rows,
    in_order,
    node_facts,
    session_rows,
    summary,
)
from ops.top.screens import HelpScreen, NodeScreen

REFRESH_SECONDS = 0.5
SESSIONS_SHOWN = 50


class GroupTable(DataTable[Text]):
    """The table of nodes, whose key for a row is among those at the foot."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Details")]


class TopApp(App[None]):
    """Shows a history that somebody else keeps writing.

    Args:
        history: What is heard of the cluster.
        listen: Keeps writing the history until it is cancelled; its failure ends the application.
        clock: Seconds; the one that the history is written by.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "headwater top"
    CSS = """
    #summary { height: 3; padding: 0 1; }
    #groups { height: auto; max-height: 60%; }
    #sessions_title { height: 1; padding: 0 1; text-style: bold; margin-top: 1; }
    #sessions { height: 1fr; min-height: 3; }
    DataTable { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    NodeScreen, HelpScreen { align: center middle; }
    .panel { width: 90%; max-width: 100; max-height: 90%; height: auto; border: round $accent; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("s", "sort", "Sort"),
        Binding("p", "pause", "Pause"),
        Binding("question_mark", "help", "Help", key_display="?"),
    ]

    def __init__(
        self,
        history: ClusterHistory,
        listen: Callable[[], Coroutine[object, object, object]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(ansi_color=False)
        self._history = history
        self._listen = listen
        self._clock = clock
        self._order = Order.NODE
        self._paused_at: float | None = None
        self._rows: list[GroupRow] = []
        self._sessions: list[SessionRow] = []
        self._sessions_age: float | None = None
        self._summary = Summary()

    def compose(self) -> ComposeResult:
        """Summary, nodes, sessions, keys."""
        yield Static(id="summary")
        yield GroupTable(id="groups", cursor_type="row")
        yield Static(id="sessions_title")
        sessions = DataTable[Text](id="sessions", cursor_type="none")
        sessions.can_focus = False
        yield sessions
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to draw."""
        self.query_one("#groups").focus()
        self.run_worker(self._listen(), exit_on_error=True)
        self.set_interval(REFRESH_SECONDS, self.draw)
        self.draw()

    def on_resize(self, _event: Resize) -> None:
        """Choose the columns anew."""
        self.draw()

    def draw(self) -> None:
        """Show what was heard; while paused, what had been heard then."""
        if not self._base.query("#summary"):
            return  # The screen is not made yet, or is taken down already: a timer or a new size came then.
        now = self._clock()
        if self._paused_at is None:
            self._observe(now)
        self._draw_summary(now)
        self._draw_groups()
        self._draw_sessions()
        if self._paused_at is None:
            self._draw_details()

    def action_sort(self) -> None:
        """Sort the nodes by the next column."""
        self._order = self._order.next()
        self.draw()

    def action_pause(self) -> None:
        """Hold the picture, or let it go on; the nodes are asked all the while."""
        self._paused_at = self._clock() if self._paused_at is None else None
        self.draw()

    def action_help(self) -> None:
        """Say what the keys and columns are."""
        self.push_screen(HelpScreen())

    async def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show the chosen node in full."""
        await self.push_screen(NodeScreen(str(event.row_key.value).partition("/")[0]))
        self._draw_details()

    def _observe(self, now: float) -> None:
        self._rows = group_rows(self._history, now)
        self._sessions = session_rows(self._history)
        self._summary = summary(self._history, now)
        read_at = self._history.sessions_at
        self._sessions_age = None if read_at is None else now - read_at

    def _draw_summary(self, now: float) -> None:
        paused_seconds = None if self._paused_at is None else now - self._paused_at
        told = cells.summary_lines(self._summary, paused_seconds=paused_seconds, width=self.size.width - 2)
        self._base.query_one("#summary", Static).update(told)

    def _draw_groups(self) -> None:
        rows = in_order(self._rows, self._order)
        columns = cells.columns(self.size.width, max((len(row.node_id) for row in rows), default=0))
        fill(
            self._base.query_one("#groups", GroupTable),
            [(self._heading(column), column.width) for column in columns],
            {row.key: cells.group_cells(row, columns) for row in rows},
        )

    def _heading(self, column: cells.Column) -> str:
        marked = f"{column.name} ▾" if column.name == str(self._order) else column.name
        return marked.rjust(column.width) if column.right else marked

    def _draw_sessions(self) -> None:
        title = Text("Busiest of the sessions updated last", "bold")
        if self._sessions_age is None:
            title.append("   not read yet", "not bold dim")
        elif self._sessions_age > FRESH_SECONDS + SESSIONS_SECONDS:
            title.append(f"   read {duration(self._sessions_age)} ago", "not bold red")
        self._base.query_one("#sessions_title", Static).update(title)
        shown = cells.session_columns(self.size.width)
        fill(
            self._base.query_one("#sessions", DataTable),
            [(name.rjust(width) if name.startswith("entries") else name, width) for name, width in shown],
            {row.session_id: cells.session_cells(row, shown) for row in self._sessions[:SESSIONS_SHOWN]},
        )

    def _draw_details(self) -> None:
        if isinstance(self.screen, NodeScreen):
            address = self.screen.address
            rows = [row for row in self._rows if row.address == address]
            self.screen.show(cells.details(rows, node_facts(self._history.nodes[address])))

    @property
    def _base(self) -> Screen[object]:
        return self.screen_stack[0]


def fill(table: DataTable[Text], headings: Sequence[tuple[str, int]], rows: Mapping[str, Sequence[Text]]) -> None:
    """Let a table hold these rows: in place where only cells change, so that cursor and scrolling stay.

    Args:
        table: The table.
        headings: The name and the width of each column.
        rows: The cells of each row, by what identifies it.
    """
    if [(str(column.label), column.width) for column in table.ordered_columns] != list(headings):
        chosen = _chosen(table)
        table.clear(columns=True)
        for name, width in headings:
            table.add_column(name, width=width)
    elif [str(row.key.value) for row in table.ordered_rows] != list(rows):
        chosen = _chosen(table)
        table.clear()
    else:
        for at, cells_of_row in enumerate(rows.values()):
            for column, cell in enumerate(cells_of_row):
                table.update_cell_at(Coordinate(at, column), cell)
        return
    for key, cells_of_row in rows.items():
        table.add_row(*cells_of_row, key=key)
    if chosen in rows:
        table.move_cursor(row=list(rows).index(chosen), animate=False)


def _chosen(table: DataTable[Text]) -> str:
    """The key of the row that the cursor is on; empty for none."""
    at = table.cursor_row
    return str(table.ordered_rows[at].key.value) if 0 <= at < table.row_count else ""
