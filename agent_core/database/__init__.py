"""SQLite as this project uses it: the build, the connections, the thread that owns them, the WAL, the schema."""
