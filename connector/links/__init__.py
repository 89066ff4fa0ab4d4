"""BTP links over WebSocket: how bytes reach a peer and come back, in batches."""
