"""Isolation of plugin providers: a separate thread with its event loop, a watchdog, and limits per cycle."""
