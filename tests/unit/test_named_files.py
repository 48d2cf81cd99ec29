"""The documents name files of the project; what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = "agent_core|primary|replica|ops|proto|tests"
NAMED = re.compile(rf"[`(]((?:{FOLDERS})/[\w./-]*\w)[`)]")


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "ops/runbook.md"])
def test_every_file_and_folder_that_a_document_names_is_there(document: str) -> None:
    named = NAMED.findall((ROOT / document).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_tests_that_show_each_promise_are_looked_for() -> None:
    assert "tests/e2e/test_first_light.py" in NAMED.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
