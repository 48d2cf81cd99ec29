"""The control plane's I/O: the replicated map, the nodes' attendance, and the supervision of the groups."""
