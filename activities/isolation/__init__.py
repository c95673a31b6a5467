"""A plugin's provider in a thread of its own: its event loop, its watchdog, its limits."""
