"""The edge between Temporal and the library: unpack, call, heartbeat, signal, translate errors."""
