"""What a running node exports, and who leads by it."""

from __future__ import annotations

import httpx

from ops.local_cluster import LocalCluster


async def exported(cluster: LocalCluster, node: str) -> dict[str, float]:
    """A node's samples by series."""
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://{cluster.address(node).http_address}/metrics")
    lines = (line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#"))
    return {series: float(number) for series, _, number in lines}


async def roles(cluster: LocalCluster, group: int = 0) -> tuple[str, list[str]]:
    """The node that leads a group of a cluster that is ready, and the others."""
    names = [node.node_id for node in cluster.addresses]
    serving = [
        name for name in names if (await exported(cluster, name))[f'headwater_group_serving{{group="{group}"}}']
    ]
    (primary,) = serving
    return primary, [name for name in names if name != primary]
