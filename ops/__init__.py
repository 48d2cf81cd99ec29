"""The daemon's composition, its command line, its metrics, and the demonstration."""

import os

# Before gRPC is imported. uvloop forks to start a process; gRPC would restart its threads in the child, where they
# crash now and then before the child's own program begins.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
