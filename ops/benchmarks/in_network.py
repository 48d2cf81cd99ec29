"""Becomes a node in the network of its name: `in_network.py COMMAND… --config DIR/NODE/headwater.toml`."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Turn into the node."""
    node = Path(sys.argv[-1]).parent.name
    os.execvp("ip", ["ip", "netns", "exec", node, *sys.argv[1:]])  # noqa: S606, S607 - the commands of this program


if __name__ == "__main__":
    main()
