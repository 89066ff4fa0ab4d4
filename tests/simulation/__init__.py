"""Five nodes in one process, on memory streams with seeded faults, under trio's mock clock."""
