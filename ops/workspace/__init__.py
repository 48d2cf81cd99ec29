"""Keeping the index of a workspace equal to a folder of Markdown files."""
