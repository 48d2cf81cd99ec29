"""Commands that see a hosts file of their own in the place of the system's, in a mount namespace."""

from __future__ import annotations

import os
from pathlib import Path

_SEE_HOSTS = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


def with_hosts(hosts: Path, *command: str) -> list[str]:
    """The command, so that it finds hosts by this file, which may change while it runs."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *as_root, "--mount", "--", "sh", "-c", _SEE_HOSTS, "sh", str(hosts), *command]
