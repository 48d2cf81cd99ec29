"""Which source of a workspace a folder is: an identity that stays, and a label for eyes.

A host's name says little, above all in containers, and two machines may have the same path. So the identity is
made of the folder's path and a random number that is kept for this user of this machine, outside of the folder:
within it, a copy of the folder would pass for the folder itself. A folder that was moved is therefore another
source, and so is one in a container whose state is not kept; both may be given a name to go by instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from agent_core.workspace.source import MAX_LABEL_CHARACTERS, Claim

_RANDOM = re.compile(r"[0-9a-f]{32}\n")


class NoIdentity(Exception):
    """The random number cannot be kept or read; the message names its file."""


def state_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the random number of this user of this machine is kept."""
    state = environment.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(state) / "headwater" / "source-identity"


def claim_of(root: Path, name: str | None, *, take_over: bool) -> Claim:
    """What the source says that a folder is.

    Args:
        root: The folder, resolved.
        name: What it goes by, wherever it lies; None: by its path on this machine.
        take_over: It is wanted although another source keeps the workspace.

    Raises:
        NoIdentity: It goes by its path, and there is no number for this machine.
    """
    known_by = ["name", name] if name is not None else ["path", _random_number(state_file()), str(root)]
    identity = hashlib.blake2b("\0".join(known_by).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    label = f"{socket.gethostname()}:{root}" + (f" ({name})" if name is not None else "")
    sendable = label.encode(errors="backslashreplace").decode()
    return Claim(identity, sendable[:MAX_LABEL_CHARACTERS], take_over=take_over)


def _random_number(file: Path) -> str:
    """The number in the file, which is made if it is not there; two that make it at once get the same one."""
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            new = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
            new.write_text(f"{secrets.token_hex(16)}\n")
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(new, file)
            finally:
                new.unlink()
        found = file.read_bytes().decode(errors="replace")
    except OSError as error:
        raise NoIdentity(f"this machine's number cannot be kept in {file}: {error.strerror}") from error
    if not _RANDOM.fullmatch(found):
        raise NoIdentity(f"{file} does not hold 32 hexadecimal digits; remove it to have it made anew")
    return found.strip()
