"""Login to a Postgres store, and the meaning of a rejected login.

A rejection is a fault of this process: connection string, password, trusted certificates. Another process may
be right, so it raises StoreUnusable, not the error of a rejected statement. `Usability` keeps which stores
reject this process.
"""

import asyncio
import random
import re
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
from pydantic import SecretStr

from syncline.errors import StoreError, StoreUnavailable, StoreUnusable
from syncline.stores.connection import Connection
from syncline.stores.conninfo import ConnectionStringInvalid
from syncline.stores.dsn import Dsn, Host
from syncline.stores.passwords import PasswordCommand, Passwords

__all__ = ["OLDEST", "SYSTEM", "Login", "Usability", "version_problem"]

SYSTEM: Final = ("write", "graph", "control")
"""The stores needed to sync any graph."""


class Usability:
    """Result of the last login to each store; shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[str, StoreUnusable] = {}

    def note(self, store: str, problem: StoreUnusable | None) -> None:
        """Record why a login was rejected, or (None) that it succeeded."""
        with self._lock:
            if problem is None:
                self._refused.pop(store, None)
            else:
                self._refused[store] = problem

    def refused(self) -> Sequence[str]:
        """Return the names of the stores that reject this process."""
        with self._lock:
            return sorted(self._refused)

    def problems(self) -> Sequence[str]:
        """Return a sentence for each of these stores."""
        with self._lock:
            return [str(self._refused[store]) for store in sorted(self._refused)]

    @property
    def barred(self) -> bool:
        """Whether this process cannot sync any graph: a system store rejects it."""
        return any(store in SYSTEM for store in self.refused())


OLDEST: Final = 14
"""The oldest supported PostgreSQL, for either store."""
_SECONDS: Final = 10.0

_OUTAGES: Final = frozenset({"08", "40", "53", "57", "58"})
"""SQLSTATE classes with which a reachable server reports that it cannot serve now."""
_POOLER: Final = re.compile(
    r"no such (?:user|database)|auth|password|unsupported startup parameter|TLS required|SSL required|"
    r"endpoint ID is not specified|tenant|not allowed",
    re.IGNORECASE,
)
"""Poolers use one SQLSTATE for everything; these messages are about the login."""
_HOSTNAME_MISMATCH: Final = 62, 64
_TLS_REFUSALS: Final = re.compile(
    "ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_|HANDSHAKE_FAILURE|PROTOCOL_VERSION|ACCESS_DENIED)"
    "|WRONG_VERSION_NUMBER|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE"
)


@dataclass(frozen=True)
class _Asked:
    application_name: str
    seconds: float


class Login:
    """Opens connections to one store. `setting` names the source of the connection string.

    `usability` is updated after each attempt.
    """

    def __init__(
        self,
        store: str,
        dsn: Dsn,
        *,
        setting: str,
        password_command: Sequence[str] | None = None,
        usability: Usability | None = None,
    ) -> None:
        self._store, self._dsn, self._setting = store, dsn, setting
        command = None if password_command is None else PasswordCommand(store, password_command, dsn)
        self._passwords = Passwords(store, dsn, command)
        self._usability = usability or Usability()

    @property
    def dsn(self) -> Dsn:
        """The parsed connection string."""
        return self._dsn

    async def connect(
        self, application_name: str, *, seconds: float = _SECONDS, at: Host | None = None
    ) -> Connection:
        """Return a new connection, to the host `at` if given.

        Each host has `seconds` to answer, unless the connection string sets a timeout. Raises StoreUnusable
        when this process is rejected, StoreUnavailable or the driver's error when the server does not answer.
        """
        asked = _Asked(application_name, self._dsn.connect_seconds or seconds)
        hosts = list(self._dsn.hosts) if at is None else [at]
        try:
            try:
                connection = await self._first(hosts, asked)
            except StoreUnusable:
                if not self._passwords.may_have_changed():
                    raise
                connection = await self._first(hosts, asked)
        except StoreUnusable as problem:
            raise self.refused(problem) from problem.__cause__
        return connection

    def accepted(self) -> None:
        """Record that the store accepted this process's login."""
        self._usability.note(self._store, None)

    def refused(self, problem: StoreUnusable) -> StoreUnusable:
        """Record that the store rejected this process, and return the reason."""
        self._usability.note(self._store, problem)
        return problem

    async def _first(self, hosts: list[Host], asked: "_Asked") -> Connection:
        """Return a connection to the first host that answers and has the requested attributes."""
        if self._dsn.shuffled:
            random.shuffle(hosts)
        wanted = [self._dsn.target_session_attrs]
        if wanted == ["prefer-standby"]:
            wanted = ["standby", "any"]
        failure: StoreError | None = None
        for attributes in wanted:
            for host in hosts:
                try:
                    return await self._connected(host, attributes, asked)
                except StoreUnavailable as error:
                    failure = error
        raise failure or StoreUnavailable(self._store, "none of its hosts answers")

    async def _connected(self, host: Host, attributes: str, asked: "_Asked") -> Connection:
        password = await self._passwords.of(host)
        problem: StoreError
        try:
            connection = await self._ask(host, attributes, asked, password)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            problem = self._answered(error)
        except (OSError, TimeoutError) as error:
            raise self._network(error, asked.seconds) from error
        except (ValueError, TypeError):
            # A driver error, which may quote its parameters.
            problem = self._unusable("the driver cannot use what it says.")
        else:
            old = version_problem(connection.get_server_version())
            if old is None:
                connection.host = host
                connection.keep_alive(self._dsn.keepalive)
                return connection
            connection.terminate()
            problem = StoreUnusable(self._store, old)
        # Not chained: messages of driver and server may quote the connection string.
        raise problem

    async def _ask(
        self, host: Host, attributes: str, asked: "_Asked", password: SecretStr | None
    ) -> Connection:
        try:
            tls = self._dsn.tls.for_driver()
        except ConnectionStringInvalid as error:
            raise self._unusable(f"{error}.") from None
        server_settings = {"application_name": asked.application_name}
        if self._dsn.options is not None:
            server_settings["options"] = self._dsn.options
        connection: Connection = await asyncpg.connect(
            host=host.name,
            port=host.port,
            user=self._dsn.user,
            database=self._dsn.database,
            # As a function: given None, the driver would look for a password itself.
            password=lambda: None if password is None else password.get_secret_value(),
            ssl=tls,
            direct_tls=self._dsn.tls.direct,
            target_session_attrs=attributes,
            timeout=asked.seconds,
            connection_class=Connection,
            server_settings=server_settings,
        )
        return connection

    def _answered(self, error: Exception) -> StoreError:
        """Map an answer of the server, or of the driver, to a StoreError."""
        sqlstate = getattr(error, "sqlstate", None)
        if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
            wanted = self._dsn.target_session_attrs
            return StoreUnavailable(self._store, f"the server does not match target_session_attrs={wanted}")
        if isinstance(error, asyncpg.ClientConfigurationError) or not isinstance(sqlstate, str):
            if isinstance(error, ValueError):
                return self._unusable("the driver cannot use what it says.")
            return StoreUnavailable(self._store, str(error) or type(error).__name__)
        text = getattr(error, "message", None) or str(error)
        if sqlstate[:2] not in _OUTAGES or (sqlstate == "08P01" and _POOLER.search(text)):
            return self._unusable(f"{text}.", sqlstate=sqlstate)
        return StoreUnavailable(self._store, text, sqlstate=sqlstate)

    def _network(self, error: Exception, seconds: float) -> StoreError:
        """Map the failure to establish a session to a StoreError."""
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _HOSTNAME_MISMATCH:
                fix = "The host must be a name in the server's certificate."
            else:
                fix = "Its sslrootcert must contain the issuer of the server's certificate."
            return self._unusable(f"the server's certificate is not trusted: {error.verify_message}. {fix}")
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or "").replace("_", " ").lower()
            if _TLS_REFUSALS.search(error.reason or ""):
                return self._unusable(f"no TLS connection to the server: {reason}.")
            return StoreUnavailable(
                self._store, f"TLS to the server broke off: {reason or 'no reason given'}"
            )
        if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
            return self._unusable("the server has no TLS, but sslmode requires it.")
        if isinstance(error, socket.gaierror):
            return StoreUnavailable(self._store, f"its host name was not found ({error.strerror})")
        if isinstance(error, TimeoutError | asyncio.TimeoutError) and not str(error):
            return StoreUnavailable(self._store, f"no answer within {seconds:g} s when connecting")
        return StoreUnavailable(self._store, str(error) or type(error).__name__)

    def _unusable(self, problem: str, *, sqlstate: str | None = None) -> StoreUnusable:
        return StoreUnusable(self._store, f"{problem} Correct {self._setting}.", sqlstate=sqlstate)


def version_problem(version: tuple[int, ...]) -> str | None:
    """Return a sentence if this server version is too old, None if it is supported."""
    if version[0] >= OLDEST:
        return None
    told = ".".join(str(part) for part in version[:2])
    return f"it is PostgreSQL {told}, and Syncline needs {OLDEST} or newer."
