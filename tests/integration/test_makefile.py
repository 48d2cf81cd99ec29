"""What `make demo` prints on a machine where nothing is set up yet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

FAKE_PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit
echo "python says: $*"
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
  printf '#!/bin/sh\\necho "dashboard: http://127.0.0.1:1"\\necho "headwater $*"\\n' > "$3/bin/headwater"
  chmod +x "$3/bin/headwater"
fi
"""
"""Makes a `.venv` with a `headwater` that does nothing, and talks of each step that could."""


def test_the_demos_first_line_comes_first_although_all_set_up_is_done_before_it(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    # Of the `make` that runs these tests nothing may be inherited.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", f"PYTHON={python}", "demo"]
    made = subprocess.run(
        command, cwd=tmp_path, env={**environment, "DEMO_SECONDS": "20"}, capture_output=True, text=True, check=True
    )
    assert made.stdout.splitlines() == ["dashboard: http://127.0.0.1:1", "headwater demo --seconds 20"]
    assert "python says: -m pip install --quiet --require-hashes" in made.stderr
