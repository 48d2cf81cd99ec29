"""Whole files: the product's sample, and real transcripts where the shared folder is at hand."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from agent_core.routing import check_session_id
from agent_core.transcripts import BrokenLine, ImportedEntry, ImportedSession, read_transcript
from ops.sample_transcripts import sample_paths

REAL = Path(__file__).parents[3] / "shared" / "data" / "transcripts"


def transcript_files() -> list[Path]:
    real = sorted(path for path in REAL.rglob("*") if path.suffix in (".jsonl", ".traj"))
    return real + sample_paths()


def records_counted_by_hand(path: Path) -> tuple[int, int]:
    """Records, and lines that are none, without the code under test."""
    if path.suffix == ".traj":
        return len(orjson.loads(path.read_bytes())["history"]), 0
    values = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    records = sum(isinstance(value, dict) for value in values)
    return records, len(values) - records


def entries(path: Path) -> Iterator[ImportedEntry]:
    return (event for event in read_transcript(path) if isinstance(event, ImportedEntry))


@pytest.mark.parametrize("path", transcript_files(), ids=lambda path: path.name[-60:])
def test_every_record_of_a_file_becomes_one_entry(path: Path) -> None:
    records, broken = records_counted_by_hand(path)
    events = list(read_transcript(path))
    assert sum(isinstance(event, ImportedEntry) for event in events) == records
    assert sum(isinstance(event, BrokenLine) for event in events) == broken


@pytest.mark.parametrize("path", transcript_files(), ids=lambda path: path.name[-60:])
def test_entries_and_broken_lines_tell_their_place_in_the_file(path: Path) -> None:
    places = [event.line for event in read_transcript(path) if isinstance(event, ImportedEntry | BrokenLine)]
    if path.suffix == ".traj":
        assert places == list(range(1, sum(records_counted_by_hand(path)) + 1))
    else:
        lines = path.read_bytes().splitlines()
        assert places == [number for number, line in enumerate(lines, start=1) if line.strip()]


@pytest.mark.parametrize("path", transcript_files(), ids=lambda path: path.name[-60:])
def test_a_session_comes_once_and_before_its_entries(path: Path) -> None:
    announced: set[str] = set()
    for event in read_transcript(path):
        if isinstance(event, ImportedSession):
            assert event.session_id not in announced
            assert check_session_id(event.session_id)
            announced.add(event.session_id)
        elif isinstance(event, ImportedEntry):
            assert event.session_id in announced
            assert isinstance(orjson.loads(event.payload), dict)


@pytest.mark.parametrize("path", transcript_files(), ids=lambda path: path.name[-60:])
def test_no_two_entries_of_a_file_share_a_key_and_a_second_reading_gives_the_same(path: Path) -> None:
    first = [(entry.session_id, entry.idempotency_key) for entry in entries(path)]
    assert len(set(first)) == len(first)
    assert [(entry.session_id, entry.idempotency_key) for entry in entries(path)] == first


def test_no_two_trajectories_become_one_session() -> None:
    trajectories = [path for path in transcript_files() if path.suffix == ".traj"]
    sessions = {entry.session_id for path in trajectories for entry in entries(path)}
    assert len(sessions) == len(trajectories)


@pytest.mark.parametrize(
    "path", [p for p in transcript_files() if p.suffix == ".jsonl"], ids=lambda path: path.name
)
def test_a_record_is_kept_byte_for_byte(path: Path) -> None:
    lines = [line.strip() for line in path.read_bytes().splitlines()]
    kept = 0
    for entry in entries(path):
        payload = orjson.loads(entry.payload)
        if "record" in payload:
            kept += 1
            assert any(entry.payload.endswith(line + b"}") for line in lines)
    assert kept


GOLDEN = {
    "add_since_flag.jsonl": [
        ("tidepool", 51, "Add a --since flag to `tidepool logs`. It should take a duration like 15m or 2h…")
    ],
    "antimeridian_tiles.traj": [
        ("cartograph", 26, "Tiles at the antimeridian are rendered twice A bounding box that crosses 180° (…")
    ],
    "extract_money_type.jsonl": [("ledgerline", 42, "Money type for invoices, snapshots unchanged")],
    "fix_flaky_test.jsonl": [("parcel-tracker", 42, "Flaky business-day test: UTC versus warehouse calendar")],
    "index_regression.jsonl": [
        ("kelpie", 34, "3x slower index builds: find and fix"),
        ("kelpie", 6, "Read the diffs of 5d0b7aa, e81c2f4 and 77ad913 in crates/index. For each: could…"),
    ],
    "parse_german_months.jsonl": [
        ("wetterfrosch", 15, "Der Import bricht seit gestern ab: „ValueError: unbekannter Monat: 'Mrz'“. Bitt…")
    ],
    "slow_report.jsonl": [("harbour", 34, "The monthly berth report takes 40 seconds since last week. Why?")],
}


def test_the_sample_holds_what_the_demo_shows() -> None:
    found = {}
    for path in sample_paths():
        events = list(read_transcript(path))
        counted = [event.session_id for event in events if isinstance(event, ImportedEntry)]
        sessions = [event for event in events if isinstance(event, ImportedSession)]
        found[path.name] = [(one.workspace, counted.count(one.session_id), one.title) for one in sessions]
    assert found == GOLDEN


def test_the_ids_and_keys_of_the_sample_never_change() -> None:
    """A change here would import every transcript that anyone imported a second time."""
    first = {path.name: next(entries(path)) for path in sample_paths()}
    assert {name: (entry.session_id, entry.idempotency_key) for name, entry in first.items()} == {
        "add_since_flag.jsonl": (
            "3e1c26d3-23ef-423e-a848-f808f54d35bf",
            "claude-code:53fc7cbcdc9f7057b50794c7ad31a5ba",
        ),
        "antimeridian_tiles.traj": (
            "swe-agent-cartograph-e6b7c5ed5c1d8198",
            "swe-agent:51ab98e708bb326a20ac50611cea684e",
        ),
        "extract_money_type.jsonl": (
            "3bb427c1-a1da-459d-aad1-245c92010b38",
            "claude-code:5418606e58952314801995ced6c85e4e",
        ),
        "fix_flaky_test.jsonl": (
            "db5b5fab-8f4d-4e27-9da1-494c73cf256d",
            "claude-code:5edea14419c4ea7d033106eec37953be",
        ),
        "index_regression.jsonl": (
            "b39cfd4b-8abe-4d78-8520-10116895cea8",
            "claude-code:104612df0575b5d220c86f0c867bf4f2",
        ),
        "parse_german_months.jsonl": (
            "323d3ab0-f35c-48a9-bce5-e9d717208331",
            "claude-code:d89aba27b539631559c93122b44af667",
        ),
        "slow_report.jsonl": (
            "harbour-slow-report",
            "json-lines:ece1da83c9a519a51484565bdece6f57",
        ),
    }
