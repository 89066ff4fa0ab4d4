"""Nodes with their real links: stock WebSocket clients, TLS, signals, processes."""
