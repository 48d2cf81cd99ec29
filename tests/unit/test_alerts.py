"""Each alert has an entry in the runbook, and each entry has its alert."""

from __future__ import annotations

import re
from pathlib import Path

from tests.prometheus_files import ALERTS, rules

RUNBOOK = Path(__file__).parents[2] / "ops" / "runbook.md"
PARTS = ("**What it means.**", "**How to look.**", "**What to do.**")


def entries() -> dict[str, str]:
    """The runbook's text by heading."""
    _, *sections = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(section.split("\n", 1) for section in sections)


def test_the_alerts_that_the_product_owes_are_there() -> None:
    assert {rule["alert"].removeprefix("Headwater") for rule in rules(ALERTS)} == {
        "NoPrimary",
        "NoQuorum",
        "StandbyGone",
        "LagHigh",
        "AppendLatencyHigh",
        "WalGrowing",
        "CheckpointBlocked",
        "ResyncLoop",
        "DiskFilling",
    }


def test_alerts_and_runbook_entries_belong_together_one_by_one() -> None:
    assert [*entries()] == [rule["alert"] for rule in rules(ALERTS)]


def test_each_alert_points_to_its_entry() -> None:
    for rule in rules(ALERTS):
        # GitHub's anchor of a heading of one word is the word in lower case.
        assert rule["annotations"]["runbook"] == f"ops/runbook.md#{rule['alert'].lower()}"


def test_each_entry_says_what_it_means_how_to_look_and_what_to_do() -> None:
    for name, text in entries().items():
        places = [text.find(part) for part in PARTS]
        assert -1 not in places, name
        assert places == sorted(places), name


def test_links_within_the_runbook_lead_somewhere() -> None:
    anchors = {name.lower() for name in entries()}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK.read_text())) <= anchors
