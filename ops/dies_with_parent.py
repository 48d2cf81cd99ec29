"""Runs a command that ends when its parent does, however that ends: `dies_with_parent.py PARENT_PID COMMAND…`.

Linux sends the signal, and keeps it arranged across exec. Asking for it between fork and exec would be shorter,
but is unsafe in a parent with threads, and gRPC brings threads. Started by path, so that it imports nothing else.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, *command = sys.argv[1:]
    # The storage is made for this signal; a gentler one would leave behind what hangs.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")
    os.execvp(command[0], command)  # noqa: S606 - the parent's own command, without a shell on purpose


if __name__ == "__main__":
    main()
