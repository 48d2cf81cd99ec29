"""One Raft member as a process of its own: `raft_member.py JSON`. Commands come in, what it sees goes out.

In: a command's JSON. Out, one JSON object a line: `{"leader": …}`, `{"map": …}`, `{"answer": version or error}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from agent_core.control import cluster_map as maps
from agent_core.control import commands
from agent_core.errors import HeadwaterError
from ops.control.raft import ReplicatedMap
from ops.control.raft_member import RaftTiming


def say(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def main() -> None:
    asked = json.loads(sys.argv[1])
    timing = RaftTiming(**asked["timing"]) if "timing" in asked else RaftTiming()
    replicated = await ReplicatedMap.start(
        asked["node"], asked["members"], Path(asked["directory"]), asked["password"], timing
    )

    def tell_map() -> None:
        say(map=json.loads(maps.to_json(replicated.map)))

    def tell_leader() -> None:
        say(leader=replicated.leader)

    replicated.on_change(tell_map)
    replicated.on_leader_change(tell_leader)
    tell_map()
    tell_leader()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            agreed = await replicated.propose(commands.from_json(line.decode()))
            say(answer=agreed.version)
        except HeadwaterError as error:
            say(answer=error.code)
    await replicated.stop()


if __name__ == "__main__":
    asyncio.run(main())
