"""Documents of a workspace: Markdown files with YAML front matter, as the workspace shard indexes them.

Everything here is pure: bytes in, values out.
"""
