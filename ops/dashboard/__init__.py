"""The dashboard: a web application in a process of its own, which reads a cluster over its nodes' HTTP side."""
