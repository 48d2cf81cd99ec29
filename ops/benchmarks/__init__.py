"""What `headwater bench` measures, one module each, on a cluster of real processes on this machine."""
