"""A plan for tests that name the primary: a busy machine must not move it."""

from __future__ import annotations

from typing import Any

from ops.cluster_files import ClusterPlan

STEADY = {"failure_timeout_seconds": 5.0, "lease_seconds": 2.0}
"""Longer than a node of a busy machine may be held up."""


def steady_plan(**settings: dict[str, Any]) -> ClusterPlan:
    """A cluster on free ports whose primary stays with node-1 while that lives."""
    return ClusterPlan(base_port=0, settings={"election": STEADY, **settings})
