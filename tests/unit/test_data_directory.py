"""Whose data directory it is, and that a refused one is left exactly as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent_core.errors import Unavailable, WrongCluster
from ops.data_directory import IDENTITY_FILE, DataDirectory, Identity, read_identity


def identity(**changes: Any) -> Identity:
    nodes = ("node-1", "node-2", "node-3")
    counts = {"shard_count": 16, "shard_group_count": 2}
    values = {"cluster_id": "test", "node_id": "node-1", **counts, "voters": nodes, "raft_members": nodes}
    return Identity.model_validate(values | changes)


def picture(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything about a directory's files that a change would show in."""
    paths = [directory, *directory.rglob("*")]
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in paths
    }


def claim_is_refused(directory: Path, wanted: Identity, error: type[Exception], message: str) -> None:
    before = picture(directory)
    with pytest.raises(error, match=message):
        DataDirectory.claim(directory, wanted)
    assert picture(directory) == before


def test_first_use_creates_the_directory_and_writes_the_identity(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "data"
    with DataDirectory.claim(directory, identity()) as claimed:
        assert claimed.path == directory
        assert read_identity(directory) == identity()
    assert sorted(path.name for path in directory.iterdir()) == [IDENTITY_FILE]


def test_the_same_node_comes_back_to_its_directory(tmp_path: Path) -> None:
    for _ in range(2):
        with DataDirectory.claim(tmp_path, identity()):
            (tmp_path / "shards").mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cluster_id": "other"}, "cluster_id is 'test' there and 'other' in the configuration"),
        ({"node_id": "node-2"}, "node_id is 'node-1' there and 'node-2' in the configuration"),
        ({"shard_count": 8}, "shard_count is 16 there and 8 in the configuration"),
        ({"shard_group_count": 1}, "shard_group_count is 2 there and 1 in the configuration"),
    ],
)
def test_a_directory_of_another_cluster_node_or_layout_is_refused_and_left_untouched(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    DataDirectory.claim(tmp_path, identity()).release()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "shard-000.db").write_bytes(b"pages")
    claim_is_refused(tmp_path, identity(**change), WrongCluster, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"voters": ("node-1", "node-2")},
            r"voters is \(node-1, node-2, node-3\) there and \(node-1, node-2\) in the configuration. A restart "
            "cannot change who votes",
        ),
        ({"raft_members": ("node-1",)}, r"raft_members is .* there and \(node-1\) in the configuration"),
    ],
)
def test_a_changed_set_of_voters_or_raft_members_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    DataDirectory.claim(tmp_path, identity()).release()
    claim_is_refused(tmp_path, identity(**change), WrongCluster, message)


def test_a_directory_with_foreign_files_is_refused_and_left_untouched(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"holiday-{number}.jpg").write_bytes(b"picture")
    claim_is_refused(
        tmp_path, identity(), WrongCluster, "not Headwater's: holiday-0.jpg, .* and 2 more; allowed is"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"{}", orjson.dumps({**identity().model_dump(), "shard_count": "16"})],
)
def test_an_identity_that_cannot_be_read_is_refused_and_left_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / IDENTITY_FILE).write_bytes(content)
    claim_is_refused(tmp_path, identity(), WrongCluster, IDENTITY_FILE)


def test_a_later_format_version_is_refused_and_left_untouched(tmp_path: Path) -> None:
    later = {**identity().model_dump(), "format_version": 2, "new": True}
    (tmp_path / IDENTITY_FILE).write_bytes(orjson.dumps(later))
    claim_is_refused(
        tmp_path, identity(), WrongCluster, "this version of Headwater reads: format_version: Input should be 1"
    )


def test_a_claim_that_was_interrupted_before_the_identity_stood_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / f"{IDENTITY_FILE}.partial").write_bytes(b'{"cluster')
    DataDirectory.claim(tmp_path, identity()).release()
    assert sorted(path.name for path in tmp_path.iterdir()) == [IDENTITY_FILE]


def test_two_daemons_never_hold_one_directory(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ops.data_directory import DataDirectory\n"
        "from tests.unit.test_data_directory import identity\n"
        "claimed = DataDirectory.claim(Path(sys.argv[1]), identity())\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        claim_is_refused(tmp_path, identity(), Unavailable, "is in use by another daemon")
        other.kill()
    DataDirectory.claim(tmp_path, identity()).release()


def test_a_refused_claim_leaks_no_descriptor(tmp_path: Path) -> None:
    DataDirectory.claim(tmp_path, identity()).release()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(WrongCluster):
            DataDirectory.claim(tmp_path, identity(node_id="other"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_data_directory_that_is_a_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"")
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        DataDirectory.claim(file, identity())
