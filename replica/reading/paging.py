"""The orders of the session list, and its page tokens: the order and the last key of a page, opaque to clients.

Ties come by session id. Each order has an index; the other direction is the same index read backwards, ties too.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from agent_core.errors import InvalidRequest
from agent_core.routing import SESSION_ID_PATTERN
from replica.reading import page_token
from replica.reading.queries import SessionOverview


class SessionSort(StrEnum):
    """What the session list is ordered by."""

    UPDATED = "updated"
    CREATED = "created"
    TITLE = "title"
    """Letters of ASCII in either case are the same."""

    @property
    def descends(self) -> bool:
        """Whether its index, and the list where nothing else is asked for, begins with the greatest."""
        return self is not SessionSort.TITLE


class Direction(StrEnum):
    """Which end of an order a list begins at."""

    ASCENDING = "asc"
    DESCENDING = "desc"


class PageKey(NamedTuple):
    """Where a page ended: a time in milliseconds or a title, whatever the order is by, and then `session_id`."""

    value: int | str
    session_id: str


class SessionOrder(NamedTuple):
    """An order of the session list."""

    sort: SessionSort = SessionSort.UPDATED
    direction: Direction = Direction.DESCENDING

    @classmethod
    def parse(cls, sort: str, direction: str) -> SessionOrder:
        """An order that came from outside; empty: by last update, and the direction that the sort has by itself.

        Raises:
            InvalidRequest: There is no such order.
        """
        try:
            by = SessionSort(sort or SessionSort.UPDATED)
        except ValueError:
            raise InvalidRequest(f"sort is {sort[:40]!r}; allowed are {', '.join(SessionSort)}") from None
        natural = Direction.DESCENDING if by.descends else Direction.ASCENDING
        try:
            return cls(by, Direction(direction or natural))
        except ValueError:
            raise InvalidRequest(f"order is {direction[:40]!r}; allowed are {', '.join(Direction)}") from None

    @property
    def backwards(self) -> bool:
        """Whether the sort's index is read from its end."""
        return self.sort.descends != (self.direction is Direction.DESCENDING)

    def sorted(self, sessions: list[SessionOverview]) -> list[SessionOverview]:
        """Sessions in this order."""
        return sorted(sessions, key=_PLACES[self.sort], reverse=self.backwards)

    def key(self, overview: SessionOverview) -> PageKey:
        """Where a page ends whose last session this is."""
        match self.sort:
            case SessionSort.UPDATED:
                value: int | str = overview.updated_at_ms
            case SessionSort.CREATED:
                value = overview.created_at_ms
            case SessionSort.TITLE:
                value = overview.title
        return PageKey(value, overview.session_id)


LAST_UPDATED_FIRST = SessionOrder()

_PLACES: dict[SessionSort, Callable[[SessionOverview], Any]] = {
    SessionSort.UPDATED: lambda overview: (-overview.updated_at_ms, overview.session_id),
    SessionSort.CREATED: lambda overview: (-overview.created_at_ms, overview.session_id),
    # The bytes' method knows ASCII only, as SQLite's NOCASE does.
    SessionSort.TITLE: lambda overview: (overview.title.encode().lower(), overview.session_id),
}
"""Where a session stands in each order, its index read forwards."""


def encode_page_token(order: SessionOrder, key: PageKey) -> str:
    """The token that continues a list of this order after `key`."""
    return page_token.encode([*order, *key])


def decode_page_token(token: str, order: SessionOrder) -> PageKey | None:
    """The key that a token from outside continues after; None for the empty token.

    Raises:
        InvalidRequest: It is not a token of a list in this order.
    """
    if not token:
        return None
    match page_token.decode(token):
        case [str(sort), str(direction), value, str(session_id)] if SESSION_ID_PATTERN.fullmatch(session_id):
            if (sort, direction) != order:
                raise InvalidRequest(
                    f"page_token does not continue a list with sort {order.sort} and order {order.direction}"
                )
            is_key = (
                isinstance(value, str)
                if order.sort is SessionSort.TITLE
                else type(value) is int and abs(value) < 2**63
            )
            if is_key:
                return PageKey(value, session_id)
    raise page_token.refusal()
