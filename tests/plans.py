"""What a cluster of a test is like where the test does not depend on it: on free ports, and small on disk."""

from __future__ import annotations

from typing import Any

from ops.cluster_files import ClusterPlan

SEGMENT_MIB = 4
"""Every group of every node preallocates a log segment or two: of the product's 64 MiB they fill a small disk."""


def small_plan(*, voters: int | None = None, readers: int | None = None, **settings: Any) -> ClusterPlan:
    """A cluster on free ports whose logs take little of the disk; `settings` by section."""
    storage = {"segment_mib": SEGMENT_MIB, **settings.pop("storage", {})}
    return ClusterPlan(voters=voters, readers=readers, base_port=0, settings={"storage": storage, **settings})
