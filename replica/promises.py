"""The promise of one group on the disk.

The file holds one line, `headwater-promise 1 CLUSTER GROUP EPOCH CANDIDATE CHECKSUM`, and is replaced as a
whole. A damaged one is never taken for an absent one: a voter that forgets what it promised can let two nodes
lead one epoch.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import google_crc32c

from agent_core.errors import LogDamaged, WrongCluster
from agent_core.log.segment import sync_directory
from replica.voting import Promise

_LINE = re.compile(rb"(headwater-promise 1 (\S+) (\d+) (\d+) (\S*)) ([0-9a-f]{8})\n")


class PromiseFile:
    """Reads and replaces one group's promise.

    Attributes:
        promise: What the file holds.
    """

    def __init__(self, path: Path, *, cluster_id: str, group: int) -> None:
        """Read the file at `path`; no file means that nothing was promised yet.

        Raises:
            WrongCluster: It belongs to another cluster or group.
            LogDamaged: It does not hold what was written.
            OSError: It cannot be read.
        """
        self._path = path
        self._cluster_id = cluster_id
        self._group = group
        self._writing = threading.Lock()
        self.promise = self._read() if path.exists() else Promise()

    def keep(self, promise: Promise) -> None:
        """Make a promise durable; a crash leaves the old one or the new one.

        Raises:
            RuntimeError: Another thread is writing a promise here; the caller must wait for it.
            ValueError: It does not go beyond the promise that stands.
            OSError: The disk failed; which promise a restart will find is unknown, the old one or this one.
        """
        if not self._writing.acquire(blocking=False):
            raise RuntimeError(f"{self._path} is being written already; one promise at a time")
        try:
            self._replace(promise)
        finally:
            self._writing.release()

    def _replace(self, promise: Promise) -> None:
        if promise.epoch <= self.promise.epoch:
            raise ValueError(f"epoch {promise.epoch} does not go beyond the promised epoch {self.promise.epoch}")
        body = f"headwater-promise 1 {self._cluster_id} {self._group} {promise.epoch} {promise.candidate}".encode()
        if not self._path.parent.is_dir():
            self._path.parent.mkdir(parents=True)
            sync_directory(self._path.parent.parent)
        unfinished = self._path.with_name(self._path.name + ".new")
        with unfinished.open("wb") as file:
            file.write(body + b" %08x\n" % google_crc32c.value(body))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)
        sync_directory(self._path.parent)
        self.promise = promise

    def _read(self) -> Promise:
        data = self._path.read_bytes()
        match = _LINE.fullmatch(data)
        if match is None or int(match[6], 16) != google_crc32c.value(match[1]):
            raise LogDamaged(
                f"{self._path} is damaged: {data[:120]!r}. What this node promised is unknown, so it must not "
                "vote. Remove the node's whole data directory and let it join anew; do not remove this file alone"
            )
        cluster_id, group = match[2].decode(), int(match[3])
        if (cluster_id, group) != (self._cluster_id, self._group):
            raise WrongCluster(
                f"{self._path} holds a promise of cluster {cluster_id}, group {group}; this node is of cluster "
                f"{self._cluster_id}, and the file must be that of group {self._group}"
            )
        return Promise(int(match[4]), match[5].decode())
