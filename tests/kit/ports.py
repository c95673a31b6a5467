"""Ports for the servers that a test starts."""

import socket

__all__ = ["free_port"]


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
