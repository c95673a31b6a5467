"""Connection settings of a Postgres store: its connection string, parsed and validated.

Every libpq parameter is supported, rejected by name, or ignored because that weakens nothing;
docs/connections.md lists which. The driver never sees the text.
"""

import getpass
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from syncline.stores.conninfo import ConnectionStringInvalid, parse_connection_string
from syncline.stores.tls import Tls, tls_of

__all__ = ["ConnectionStringInvalid", "Dsn", "Host", "Keepalive", "parse_dsn", "without_password"]

_PORT: Final = 5432
_SESSIONS: Final = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")

_PASSED_OVER: Final = frozenset(
    {
        "application_name",  # Syncline sets its own names
        "fallback_application_name",
        "pgbouncer",  # poolers are detected
        "sslcompression",  # never used
    }
)
_ONLY: Final[Mapping[str, tuple[frozenset[str], str]]] = {
    # name -> the accepted values, since Syncline does nothing else; and what to do about any other
    "gssencmode": (frozenset({"disable", "prefer"}), "encryption by Kerberos is not supported; use sslmode"),
    "sslsni": (frozenset({"1"}), "the server's name is always sent; remove it"),
    "client_encoding": (frozenset({"auto", "utf8", "utf-8", "unicode"}), "it is always UTF8; remove it"),
    "sslcertmode": (frozenset({"allow"}), "a certificate is sent when one is given; remove it"),
    "replication": (frozenset({"false", "0", "off", "no"}), "remove it"),
}
_REFUSED: Final[Mapping[str, str]] = {
    # name -> what to do instead
    **dict.fromkeys(
        ("connection_limit", "pool_size"), "SYNCLINE_POOL_SIZE says how many connections there are"
    ),
    **dict.fromkeys(("schema", "currentSchema", "search_path"), "a graph's record names its schema"),
    **dict.fromkeys(("service", "servicefile"), "write out what that service says"),
    **dict.fromkeys(
        (
            "gssdelegation",
            "gsslib",
            "hostaddr",
            "krbsrvname",
            "load_balance",
            "max_protocol_version",
            "min_protocol_version",
            "oauth_client_id",
            "oauth_client_secret",
            "oauth_issuer",
            "oauth_scope",
            "pool_timeout",
            "prepareThreshold",
            "prepared_statement_cache_size",
            "prepared_statements",
            "require_auth",
            "requirepeer",
            "scram_client_key",
            "scram_server_key",
            "socket_timeout",
            "sslcrldir",
            "sslidentity",
            "sslkeylogfile",
            "statement_cache_size",
            "supa",
            "tcpKeepAlive",
            "timezone",
            "tty",
            "authtype",
        ),
        "remove it",
    ),
}
_SYNONYMS: Final = {"database": "dbname", "ssl": "sslmode", "username": "user"}
_ENVIRONMENT: Final = {
    # Environment variables that libpq reads for missing parameters, where ignoring them would weaken
    # security.
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "sslcert": "PGSSLCERT",
    "sslcrl": "PGSSLCRL",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


@dataclass(frozen=True, kw_only=True)
class Host:
    """One server: a host name or address, or the folder of a Unix socket."""

    name: str
    port: int

    @property
    def local(self) -> bool:
        """Whether traffic to it never leaves this machine."""
        if self.name.startswith("/") or self.name == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """The string's settings for the client's socket; None where not given."""

    on: bool = True
    idle: int | None = None
    interval: int | None = None
    count: int | None = None
    user_timeout_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dsn:
    """Where a store is and how to log in. Printing it shows no secret."""

    hosts: tuple[Host, ...]
    user: str
    database: str
    password: SecretStr | None
    passfile: Path | None
    tls: Tls
    target_session_attrs: str
    shuffled: bool
    """Whether the hosts are tried in random order."""
    connect_seconds: float | None
    options: str | None
    """Server-side session settings, as in `options`."""
    keepalive: Keepalive

    @property
    def place(self) -> str:
        """The hosts and the database, such as db.example/shop; a port where it is not the usual one."""
        hosts = [
            host.name
            if host.port == _PORT
            else f"{host.name}:{host.port}"
            if ":" not in host.name
            else f"[{host.name}]:{host.port}"
            for host in self.hosts
        ]
        return f"{','.join(hosts)}/{self.database}"

    @property
    def unverified(self) -> bool:
        """Whether a third party on the network could read the traffic or impersonate the server."""
        return not self.tls.verified and not all(host.local for host in self.hosts)


def parse_dsn(text: str, *, environment: Mapping[str, str] = os.environ) -> Dsn:
    """Parse a connection string, or raise ConnectionStringInvalid.

    From `environment`, it uses those PG* variables that libpq reads and that protect a connection; the driver
    itself reads PGPASSFILE and PGPASSWORD for a string without a password.
    """
    written = parse_connection_string(text)
    given = _known(written.parameters, nameable=written.nameable)
    for name, variable in _ENVIRONMENT.items():
        if environment.get(variable):
            given.setdefault(name, environment[variable])
    for name, (allowed, instead) in _ONLY.items():
        value = given.pop(name, None)
        if value and value.lower() not in allowed:
            raise ConnectionStringInvalid(f"parameter {name} has a value that is not supported: {instead}")
    for name in _PASSED_OVER:
        given.pop(name, None)
    for name, instead in _REFUSED.items():
        if name in given:
            raise ConnectionStringInvalid(f"parameter {name} is not supported: {instead}")
    read = _Reader(given)
    hosts = _hosts(read.text("host"), read.text("port"))
    user = read.text("user") or _os_user()
    passfile = read.text("passfile")
    password = read.text("password")
    return Dsn(
        hosts=hosts,
        user=user,
        database=read.text("dbname") or user,
        password=None if password is None else SecretStr(password),
        passfile=None if passfile is None else Path(passfile),
        tls=tls_of(read.text, tcp=any(not host.name.startswith("/") for host in hosts)),
        target_session_attrs=read.choice("target_session_attrs", _SESSIONS) or "any",
        shuffled=read.choice("load_balance_hosts", ("disable", "random")) == "random",
        # libpq waits forever for 0; here a limit remains.
        connect_seconds=read.number("connect_timeout", most=3600) or None,
        options=read.text("options"),
        keepalive=Keepalive(
            on=read.choice("keepalives", ("0", "1")) != "0",
            idle=read.number("keepalives_idle", most=32_767) or None,
            interval=read.number("keepalives_interval", most=32_767) or None,
            count=read.number("keepalives_count", most=127) or None,
            user_timeout_ms=read.number("tcp_user_timeout", most=86_400_000) or None,
        ),
    )


def without_password(text: str, **more: str) -> str:
    """Return a connection string for libpq's programs, with `more` parameters and without any secret.

    Raise ConnectionStringInvalid as `parse_dsn` does.
    """
    parse_dsn(text)
    written = parse_connection_string(text)
    given = _known(written.parameters, nameable=written.nameable)
    for name in ("password", "sslpassword", "pgbouncer", "sslcompression", "application_name"):
        given.pop(name, None)
    if options := " ".join(filter(None, (given.pop("options", None), more.pop("options", None)))):
        given["options"] = options
    return " ".join(f"{name}={_quoted(value)}" for name, value in {**given, **more}.items())


def _quoted(value: str) -> str:
    """Return a value as `keyword=value` strings have it."""
    if re.fullmatch(r"[A-Za-z0-9_./:,@%+-]+", value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class _Reader:
    """Reads parameter values; an empty one counts as not given, as in libpq."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def text(self, name: str) -> str | None:
        return self._given.get(name) or None

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        value = self.text(name)
        if value is not None and value not in choices:
            raise ConnectionStringInvalid(f"parameter {name} is one of {', '.join(choices)}")
        return value

    def number(self, name: str, *, most: int) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) > most:
            raise ConnectionStringInvalid(f"parameter {name} is a whole number from 0 to {most:,}")
        return int(value)


_READ: Final = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "dbname",
        "host",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "options",
        "passfile",
        "password",
        "port",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    }
)


def _known(parameters: Mapping[str, str], *, nameable: bool) -> dict[str, str]:
    """Return the parameters by libpq's names; raise ConnectionStringInvalid for an unknown one."""
    given: dict[str, str] = {}
    if parameters.get("ssl", "").lower() in ("true", "1"):
        # The JDBC spelling, which libpq accepts too.
        parameters = {**parameters, "ssl": "require"}
    for written, value in parameters.items():
        name = _SYNONYMS.get(written, written)
        if name not in _READ and name not in _ONLY and name not in _PASSED_OVER and name not in _REFUSED:
            safe = nameable and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]{0,62}", name)
            which = f"parameter {name}" if safe else "one of its parameters"
            raise ConnectionStringInvalid(f"{which} is not supported: remove it")
        if name in given:
            raise ConnectionStringInvalid(f"parameter {name} is given twice")
        given[name] = value
    return given


def _hosts(names: str | None, ports: str | None) -> tuple[Host, ...]:
    if names is None:
        raise ConnectionStringInvalid("it names no host; for a Unix socket, host is the folder of the socket")
    hosts = names.split(",")
    numbers = [_port(port) for port in (ports or "").split(",")]
    if len(numbers) not in (1, len(hosts)):
        raise ConnectionStringInvalid("give as many ports as hosts, or one, or none")
    numbers = numbers * len(hosts) if len(numbers) == 1 else numbers
    return tuple(Host(name=_host(host), port=port) for host, port in zip(hosts, numbers, strict=True))


def _port(port: str) -> int:
    if not port:
        return _PORT
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise ConnectionStringInvalid("a port is a number from 1 to 65535")
    return int(port)


def _host(name: str) -> str:
    """Return the host name, or raise ConnectionStringInvalid if it cannot be resolved by form."""
    if not name:
        raise ConnectionStringInvalid("one of its hosts is empty")
    if name.startswith("/"):
        return name
    try:
        return str(ipaddress.ip_address(name.partition("%")[0])) + "".join(name.partition("%")[1:])
    except ValueError:
        pass
    try:
        labels = name.rstrip(".").encode("idna").decode().split(".")
    except UnicodeError:
        labels = []
    fine = all(re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", label) for label in labels)
    if not labels or not fine or len(name) > 253:
        raise ConnectionStringInvalid(
            "one of its hosts is not a valid name; in a URI, special characters in user and password must be "
            "percent-encoded"
        )
    return name


def _os_user() -> str:
    """Return the OS user of this process, the login when a string names no user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise ConnectionStringInvalid("it names no user") from None
