"""SQL over the cluster: what is asked, and the result as a table, a chart or a file."""
