"""What lies over the tables for a moment: a node in full, and the help."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

HELP = """\
[b]Keys[/b]
  q        quit
  s        sort the nodes by the next column: node, group, lag, appends/s, heard
  p        pause; p again goes on. The nodes are asked all the while
  ↑ ↓      choose a row; Page Up, Page Down, Home and End too
  Enter    the chosen node in full: seals, every position, why it is not ready
  ?        this help; Escape closes it

[b]Columns[/b]
  position       epoch:lsn that the node's shards contain
  lag            how far that is behind its primary. A node that does not answer is as
                 far behind as the primary says
  lag history    one bar for each answer:
                 ▁ to 10 ms  ▂ 30 ms  ▃ 100 ms  ▄ 300 ms  ▅ 1 s  ▆ 3 s  ▇ 10 s  █ more
  appends/s      entries that the node acknowledged, over the last 10 s
  heard          age of the node's last answer; red and dim: too old to tell how it is now
"""


class Panel(ModalScreen[None]):
    """Text that scrolls, and goes away at Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "app.pop_screen", "Close", key_display="Esc"),
    ]

    def __init__(self, text: str | Text = "") -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text in its frame."""
        with VerticalScroll(classes="panel"):
            yield Static(self._text, id="text")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Let arrows scroll at once."""
        self.query_one(VerticalScroll).focus()


class HelpScreen(Panel):
    """Keys and columns."""

    def __init__(self) -> None:
        super().__init__(Text.from_markup(HELP))


class NodeScreen(Panel):
    """One node in full.

    Attributes:
        address: The node's.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def show(self, text: Text) -> None:
        """Draw the node as it is now."""
        self.query_one("#text", Static).update(text)
