"""Activities: the adapter between Temporal and the library (call, heartbeat, signal, translate errors)."""
