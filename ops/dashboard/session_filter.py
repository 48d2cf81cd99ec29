"""What a viewer looks for among the sessions: as a page's address has it, and as nodes are asked for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

MAX_CHARACTERS = 256
PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class SessionSearch:
    """The search; empty fields ask for nothing.

    Attributes:
        text: Substring of the title or of the session id.
        workspace: The workspace.
        status: The status.
        model: The model.
        since: First day of the last update, `YYYY-MM-DD` in UTC.
        until: Last day of the last update.
        page_token: Where the page begins, as the page before said.
    """

    text: str = ""
    workspace: str = ""
    status: str = ""
    model: str = ""
    since: str = ""
    until: str = ""
    page_token: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> SessionSearch:
        """Read from the query of an address; what is not known or not a day is left out."""
        known = {name: query.get(name, "").strip() for name in cls.__dataclass_fields__}
        for name in ("since", "until"):
            if _day(known[name]) is None:
                known[name] = ""
        token = known.pop("page_token")
        return cls(**{name: value[:MAX_CHARACTERS] for name, value in known.items()}, page_token=token)

    @property
    def is_empty(self) -> bool:
        """Whether it asks for every session."""
        return not any((self.text, self.workspace, self.status, self.model, self.since, self.until))

    @property
    def address(self) -> str:
        """The address of the page that shows it."""
        query = urlencode({name: value for name, value in asdict(self).items() if value})
        return f"/sessions?{query}" if query else "/sessions"

    @property
    def parameters(self) -> dict[str, str | int]:
        """What nodes are asked for."""
        named = {name: getattr(self, name) for name in ("text", "workspace", "status", "model", "page_token")}
        asked: dict[str, str | int] = {name: value for name, value in named.items() if value}
        since, until = _day(self.since), _day(self.until)
        if since is not None:
            asked["updated_after_ms"] = max(0, _milliseconds(since) - 1)
        if until is not None:
            asked["updated_before_ms"] = _milliseconds(until + timedelta(days=1))
        return asked | {"page_size": PAGE_SIZE}


def _day(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if 1970 <= day.year < 9999 else None


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
