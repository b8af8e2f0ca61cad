"""Starting a cluster on one machine, its secrets, and an operator's decision after lost writes."""
