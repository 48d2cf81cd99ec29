"""Writing the documents of workspaces: from a caller's changes to the tables of the workspace shard."""
