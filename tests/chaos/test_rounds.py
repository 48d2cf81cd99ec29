"""Ten rounds of chaos; `make chaos ROUNDS=…` plays as many as one likes, and names the seed of each failure."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 10


def test_what_is_promised_is_kept_whatever_fails() -> None:
    command = (sys.executable, "-m", "tests.chaos.run", "--rounds", str(ROUNDS))
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{ROUNDS} rounds" in done.stdout.splitlines()[-1]
