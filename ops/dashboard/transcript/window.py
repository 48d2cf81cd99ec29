"""Which part of a transcript a page shows, and where the parts before and after it begin. Pure."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 200
"""Entries of a page."""


@dataclass(frozen=True, slots=True)
class Window:
    """The entries past `after` up to `last`, of `count` in all as far as is known."""

    after: int
    last: int
    count: int

    @staticmethod
    def start(count: int, after: int | None) -> int:
        """Behind which entry a page begins: as it was asked for, else so that it ends with the latest."""
        return max(0, count - WINDOW) if after is None else max(0, min(after, count))

    @property
    def earlier(self) -> int | None:
        """Where the page before begins; None: this is the first."""
        return max(0, self.after - WINDOW) if self.after else None

    @property
    def later(self) -> int | None:
        """Where the next page begins; None: this is the last."""
        return self.last if self.last < self.count else None

    def __str__(self) -> str:
        """For people."""
        if self.last <= self.after:
            return "no entries" if not self.count else f"nothing past entry {self.after:,} of {self.count:,}"
        if not self.after and self.last >= self.count:
            return "1 entry" if self.last == 1 else f"{self.last:,} entries"
        return f"entries {self.after + 1:,} to {self.last:,} of {max(self.count, self.last):,}"
