"""The daemon's composition, its command line, its metrics, and the demonstration."""
