"""Answers only browsers that were sent here by one of the dashboard's own names, and only its own pages.

A web page elsewhere can let its name lead to this machine for a moment (DNS rebinding); a browser then takes the
dashboard for a part of that page and lets it read everything. The name still stands in the requests. An address
cannot be made to lead elsewhere, so pages opened by one are the dashboard's own. Sockets are open to every page
whatever its name is; there the page's origin must be the dashboard's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = "localhost"
MISDIRECTED = 421
FORBIDDEN = 403
POLICY_VIOLATION = 1008
MAX_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered, and the HTTP status that says so."""

    status: int
    reason: str


class KnownNames:
    """The names by which a dashboard may be asked. Pure."""

    def __init__(self, listen: str, allowed: Iterable[str] = ()) -> None:
        """Any address and `localhost` are among them.

        Args:
            listen: The host that it listens on.
            allowed: Further names, such as that of a proxy, whose pages are the dashboard's own.
        """
        self._allowed = frozenset(name.lower() for name in allowed)
        self._names = self._allowed | {LOOPBACK, listen.lower()}

    def refusal(self, headers: Mapping[bytes, bytes]) -> Refusal | None:
        """Why not to answer a request with these headers, by lower-case name; None: answer it."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._knows(_split(f"//{host}")):
            return Refusal(
                MISDIRECTED,
                f"This dashboard does not go by the name {host[:MAX_SHOWN_CHARACTERS]!r}. "
                "If that name is yours, start it with --allowed-host and the name.",
            )
        if b"origin" not in headers:
            return None
        origin = headers[b"origin"].decode("latin-1").lower()
        page = _split(origin)
        # Behind a proxy that asks by another name, the page's own name is one that the operator named.
        if page is not None and (page.netloc == host or page.hostname in self._allowed):
            return None
        return Refusal(FORBIDDEN, f"The page {origin[:MAX_SHOWN_CHARACTERS]!r} is not one of this dashboard.")

    def _knows(self, host: SplitResult | None) -> bool:
        if host is None or not host.hostname or host.username is not None or host.path:
            return False
        try:
            ip_address(host.hostname)
        except ValueError:
            return host.hostname in self._names
        return True


def _split(address: str) -> SplitResult | None:
    """An address taken apart; None where it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


class OwnCallersOnly:
    """Refuses requests and sockets as `KnownNames` says."""

    def __init__(self, app: ASGIApp, names: KnownNames) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or socket."""
        refusal = None
        if scope["type"] in {"http", "websocket"}:
            refusal = self._names.refusal(dict(scope["headers"]))
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(refusal.reason, refusal.status)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.reason})
