"""Reading the documents of workspaces, on any node."""
