"""What others may see of a node: logs."""
