"""The dashboard under the constraints of its container: a read-only root, the user of the image, the folder /."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import httpx

from ops.cluster_files import free_ports
from tests.deployment.deployed import DOCKERFILE, compose

START_SECONDS = 60
USER = "10001"
READ_ONLY = f"""
mount -o bind,remount,ro /
if touch / 2>/dev/null; then echo 'the root is writable' >&2; exit 1; fi
cd /
exec unshare --user --map-user={USER} --map-group={USER} -- "$@"
"""
"""Run as root of a name space of its own. A /tmp on the root is not writable either; in compose it is."""


def test_compose_and_the_image_constrain_the_dashboard_so() -> None:
    assert compose()["services"]["dashboard"]["read_only"] is True
    assert f"USER {USER}:{USER}" in DOCKERFILE.read_text()


async def test_the_dashboard_needs_no_writable_folder_no_home_and_no_root() -> None:
    (port,) = free_ports(1)
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    process = await asyncio.create_subprocess_exec(
        *("unshare", *as_root, "--mount", "--", "sh", "-ec", READ_ONLY, "sh"),
        *(sys.executable, "-P", "-m", "ops.cli.main", "dashboard"),
        *("--nodes", "127.0.0.1:1", "--listen", f"127.0.0.1:{port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        assert said.decode() == f"dashboard: http://127.0.0.1:{port}\n"
        users = await asyncio.to_thread(Path(f"/proc/{process.pid}/uid_map").read_text)
        assert users.split()[0] == USER
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            for page in ("/", "/sessions", "/analytics", "/sql"):
                assert (await http.get(page)).status_code == 200
    finally:
        process.terminate()
        await process.wait()
