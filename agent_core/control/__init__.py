"""The control state: which node leads which group. Plain values and one deterministic state machine."""
