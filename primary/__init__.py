"""Writing, capturing, logging, streaming, acknowledging: what a node does for the groups that it leads."""
