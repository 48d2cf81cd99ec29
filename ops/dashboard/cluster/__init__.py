"""The cluster as its standbys see it: a picture, what changed in it, and how the lag went."""
