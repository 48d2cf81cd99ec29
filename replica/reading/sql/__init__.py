"""SQL from outside, run in worker processes so that no query can slow or stop a node.

The worker processes import this package without the rest of the node: nothing here may load the SQLite build
that opens shards for writing.
"""
