"""Following, applying, resyncing, reading: what a node does for the groups that it does not lead."""
