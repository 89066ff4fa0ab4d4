"""Real processes, killed and started again under load, and what their books say afterwards."""
