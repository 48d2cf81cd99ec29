"""`headwater top`: what was heard of the cluster, rows made of it, and the terminal that shows them."""
