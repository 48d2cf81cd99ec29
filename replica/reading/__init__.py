"""The read side that every node offers: session lists, transcripts, and SQL from outside, over gRPC and HTTP."""
