"""Who leads which group: the supervisor's choice, and the lease that a primary reads under. Pure."""
