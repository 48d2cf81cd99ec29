"""A folder is the same source each time, and no other folder or machine is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent_core.workspace.source import MAX_LABEL_CHARACTERS
from ops.workspace.source import NoIdentity, claim_of, state_file

ROOT = Path("/notes")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))


def source(root: Path = ROOT, name: str | None = None) -> str:
    return claim_of(root, name, take_over=False).source


def test_a_folder_is_the_same_source_each_time_whatever_its_host_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    before = source()
    monkeypatch.setattr("socket.gethostname", lambda: "container-2")
    assert source() == before
    assert claim_of(ROOT, None, take_over=False).label == "container-2:/notes"
    assert source(Path("/others")) != before


def test_the_same_path_on_another_machine_is_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "two"))
    assert source() != before


def test_a_name_holds_wherever_the_folder_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source(name="handbook")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "two"))
    assert source(Path("/moved"), name="handbook") == before
    assert not state_file().exists(), "a name needs no number of this machine"
    assert source(name="other") != before


def test_a_number_that_two_make_at_once_is_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    link, numbers = os.link, []

    def late(new: Path, file: Path) -> None:
        file.write_text("0" * 32 + "\n")
        numbers.append(new.read_text())
        link(new, file)

    monkeypatch.setattr(os, "link", late)
    first = source()
    assert len(numbers) == 1
    assert first == source()
    assert [file.name for file in state_file().parent.iterdir()] == [state_file().name]


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 32])
def test_a_number_that_is_none_is_told_with_its_file(content: bytes) -> None:
    state_file().parent.mkdir(parents=True)
    state_file().write_bytes(content)
    with pytest.raises(NoIdentity, match="source-identity does not hold 32 hexadecimal digits"):
        source()


def test_a_number_that_cannot_be_kept_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("no folder")
    with pytest.raises(NoIdentity, match=r"cannot be kept in .*source-identity: Not a directory"):
        source()


def test_any_path_can_be_sent_as_a_label() -> None:
    root = Path(os.fsdecode(b"/\xff" + b"x" * 3000))
    claim = claim_of(root, None, take_over=False)
    assert "\\udcff" in claim.label.encode().decode()
    assert len(claim.label) == MAX_LABEL_CHARACTERS
