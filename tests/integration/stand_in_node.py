"""A process that looks like a node from outside: health on its HTTP address, until SIGTERM.

What it does can be bent by a file `behaviour` beside its configuration: `dies` (exit code 3 at once),
`never-ready`, `ignores-sigterm`.
"""

from __future__ import annotations

import http.server
import json
import signal
import sys
from pathlib import Path

from ops.config import load


def say(event: str, **fields: str) -> None:
    sys.stderr.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stderr.flush()


def main() -> None:
    path = Path(sys.argv[sys.argv.index("--config") + 1])
    configuration = load(path)
    behaviour_file = path.parent / "behaviour"
    behaviour = behaviour_file.read_text() if behaviour_file.exists() else ""
    say("starting", node=configuration.node.id)
    if behaviour == "dies":
        say("the disk is full")
        sys.exit(3)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "ignores-sigterm" else lambda *_: sys.exit(0))
    ready = behaviour != "never-ready"

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if ready else 503)
            self.end_headers()
            reasons = [] if ready else ["group 0: waits for a majority of its voters"]
            self.wfile.write(json.dumps({"reasons": reasons}).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    host, port = configuration.own_address.http_address.split(":")
    http.server.HTTPServer((host, int(port)), Health).serve_forever()


if __name__ == "__main__":
    main()
