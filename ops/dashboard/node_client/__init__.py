"""Reads from whichever node should be asked: one that leads nothing, while one of those lives."""
