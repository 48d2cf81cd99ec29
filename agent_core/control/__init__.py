"""The cluster's map as every node agrees on it: values, commands, and the state machine that Raft replicates."""
