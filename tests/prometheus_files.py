"""The files of `ops/prometheus` as tests read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "ops" / "prometheus"
RECORDING = FOLDER / "recording.rules.yml"
ALERTS = FOLDER / "alerts.rules.yml"


def rules(path: Path) -> list[dict[str, Any]]:
    """Every rule of a file, in order."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
