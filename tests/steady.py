"""A plan for tests that name the primary: a busy machine must not move it."""

from __future__ import annotations

from typing import Any

from ops.cluster_files import ClusterPlan
from tests.plans import small_plan

STEADY = {"failure_timeout_seconds": 5.0, "lease_seconds": 2.0}
"""Longer than a node of a busy machine may be held up."""


def steady_plan(**settings: Any) -> ClusterPlan:
    """A small cluster whose primary stays with node-1 while that lives; `settings` by section."""
    return small_plan(**{"election": STEADY, **settings})
