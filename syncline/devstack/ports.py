"""Whether the ports of the stack are free, and who has them if not."""

import errno
import socket

import psutil

from syncline.errors import DevStackError

__all__ = ["require_free_port"]


def require_free_port(ip: str, port: int, *, use: str, option: str, key: str) -> None:
    """Raise DevStackError if `port` cannot be bound, saying who has it and the way out.

    `use` says what the port is for; `option` and `key` are the command-line option and the key in
    `temporal-dev.yaml` that change it.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(ip, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise DevStackError(
            f"temporal.ip '{ip}' is not an address of this machine: {error.strerror}. 127.0.0.1 always works."
        ) from None
    with socket.socket(family, kind, proto) as probe:
        # Without it, connections of a server that has just stopped would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise DevStackError(
                    f"Port {port} ({use}) is taken{_owner(port)}. Stop that, or choose another with "
                    f"`syncline dev {option} N` or {key} in temporal-dev.yaml."
                ) from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise DevStackError(
                    f"temporal.ip '{ip}' is not an address of this machine. 127.0.0.1 always works."
                ) from None
            raise DevStackError(
                f"Port {port} ({use}) cannot be used: {error.strerror}. Choose another with "
                f"`syncline dev {option} N` or {key} in temporal-dev.yaml."
            ) from None


def _owner(port: int) -> str:
    """Return ` by NAME (pid N)`, or nothing where the system does not tell."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
