"""What agents did over time: the ready views, as questions to the nodes and as charts."""
