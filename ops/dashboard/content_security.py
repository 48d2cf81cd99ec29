"""Headers that keep what a page shows from running in it or loading anything from elsewhere.

NiceGUI's own page has inline scripts, and Vue compiles templates when they are used. So scripts written by the
server carry a nonce of their response and `eval` is allowed; whatever else gets into the page, an inline handler,
a `javascript:` link, a script element, does not run.
"""

from __future__ import annotations

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCRIPT_TAG = re.compile(rb"(?m)^([ \t]*)<script(?=[ >])")
"""As the page's template and head write them: each at the start of a line, which no text of a session reaches."""


def policy(nonce: str) -> str:
    """The Content-Security-Policy of a page."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


class ContentSecurity:
    """Adds the headers to every response, and the nonce to the scripts of pages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        start: Message | None = None
        page = bytearray()

        async def send_secured(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                headers.setdefault(b"content-security-policy", policy(nonce).encode())
                headers[b"x-content-type-options"] = b"nosniff"
                headers[b"referrer-policy"] = b"no-referrer"
                start = {**message, "headers": list(headers.items())}
                if not headers.get(b"content-type", b"").startswith(b"text/html"):
                    await send(start)
                    start = None
                return
            if start is None:
                await send(message)
                return
            page.extend(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = _SCRIPT_TAG.sub(rb'\1<script nonce="' + nonce.encode() + rb'"', bytes(page))
            others = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            await send({**start, "headers": [*others, (b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, send_secured)
