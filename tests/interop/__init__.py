"""Against software that others wrote. Needs Node.js, and `scripts/just setup-node` once."""
