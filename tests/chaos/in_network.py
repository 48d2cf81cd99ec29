"""Becomes a node in the network named after its folder: `in_network.py --config DIR/NODE/headwater.toml`."""

import os
import sys
from pathlib import Path

WEAK_NODE = Path(__file__).with_name("weak_node.py")


def main() -> None:
    """Turn into the node."""
    node = Path(sys.argv[-1]).parent.name
    command = (sys.executable, "-P", str(WEAK_NODE), *sys.argv[1:])
    os.execvp("ip", ["ip", "netns", "exec", node, *command])


if __name__ == "__main__":
    main()
