"""systemd itself judges the unit, and the command that it starts takes the unit's arguments."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ops.cli.node import node

UNIT = Path(__file__).parents[2] / "ops" / "systemd" / "headwater.service"
INSTALLED = "/opt/headwater/bin/headwater"


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    # The installed command is not there while this runs; any program that is will do.
    copy = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert f"ExecStart={INSTALLED} node " in text
    copy.write_text(text.replace(f"ExecStart={INSTALLED}", f"ExecStart={sys.executable}"))
    outcome = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_the_command_takes_the_arguments_of_the_unit() -> None:
    started = re.search(rf"^ExecStart={INSTALLED} node (.*)$", UNIT.read_text(), re.MULTILINE)
    assert started
    arguments = started[1].split()
    with node.make_context("node", arguments.copy()) as context:
        assert context.params["path"] == Path("/etc/headwater/headwater.toml")
        assert context.params["log_format"] == "json"
