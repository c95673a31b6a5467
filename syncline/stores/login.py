"""Logging in to a Postgres store, and what it means when that is refused.

A refusal is a fault of this process: its connection string, its password, the certificates that it trusts.
Another one may be right, so it is told as StoreUnusable, and never as a statement that was refused.
"""

import asyncio
import random
import re
import socket
import ssl
from collections.abc import Sequence
from typing import Final

import asyncpg
from pydantic import SecretStr

from syncline.errors import StoreError, StoreUnavailable, StoreUnusable
from syncline.stores.conninfo import ConnectionStringInvalid
from syncline.stores.dsn import Dsn, Host, Keepalive
from syncline.stores.passwords import PasswordCommand, Passwords
from syncline.stores.usability import Usability

__all__ = ["OLDEST", "Login", "version_problem"]

OLDEST: Final = 14
"""The oldest PostgreSQL that is supported, for either store."""
_SECONDS: Final = 10.0

_OUTAGES: Final = frozenset({"08", "40", "53", "57", "58"})
"""Classes of SQLSTATEs with which a server that is there says that it cannot serve now."""
_POOLER: Final = re.compile(
    r"no such (?:user|database)|auth|password|unsupported startup parameter|TLS required|SSL required|"
    r"endpoint ID is not specified|tenant|not allowed",
    re.IGNORECASE,
)
"""Poolers have one SQLSTATE for everything; these of their messages are about who logs in and how."""
_HOSTNAME_MISMATCH: Final = 62, 64
_TLS_REFUSALS: Final = re.compile(
    "ALERT_(?:UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_|HANDSHAKE_FAILURE|PROTOCOL_VERSION|ACCESS_DENIED)"
    "|WRONG_VERSION_NUMBER|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE"
)


class Login:
    """How connections to one store are opened. `setting` is where the string comes from.

    `usability` is told how each attempt ends.
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
        """Where it leads."""
        return self._dsn

    async def connect(self, **server_settings: str) -> asyncpg.Connection:
        """Return a new connection with these settings of its session.

        Raise StoreUnusable when this process is refused, StoreUnavailable or the driver's error when the
        server does not answer.
        """
        try:
            try:
                connection = await self._first(server_settings)
            except StoreUnusable:
                if not self._passwords.may_have_changed():
                    raise
                connection = await self._first(server_settings)
        except StoreUnusable as problem:
            self._usability.note(self._store, problem)
            raise
        self._usability.note(self._store, None)
        return connection

    async def _first(self, server_settings: dict[str, str]) -> asyncpg.Connection:
        """Return a connection to the first of the hosts that answers and is what is asked for."""
        hosts = list(self._dsn.hosts)
        if self._dsn.shuffled:
            random.shuffle(hosts)
        wanted = [self._dsn.target_session_attrs]
        if wanted == ["prefer-standby"]:
            wanted = ["standby", "any"]
        failure: StoreError | None = None
        for attributes in wanted:
            for host in hosts:
                try:
                    return await self._connected(host, attributes, server_settings)
                except StoreUnavailable as error:
                    failure = error
        raise failure or StoreUnavailable(self._store, "none of its hosts answers")

    async def _connected(
        self, host: Host, attributes: str, server_settings: dict[str, str]
    ) -> asyncpg.Connection:
        password = await self._passwords.of(host)
        problem: StoreError
        try:
            connection = await self._ask(host, attributes, server_settings, password)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            problem = self._answered(error)
        except (OSError, TimeoutError) as error:
            problem = self._network(error)
        except (ValueError, TypeError):
            # The driver's own, which may quote what it was given.
            problem = self._unusable("the driver cannot use what it says.")
        else:
            old = version_problem(connection.get_server_version())
            if old is None:
                _keep_alive(connection, self._dsn.keepalive)
                return connection
            connection.terminate()
            problem = StoreUnusable(self._store, old)
        # Not chained: the driver's errors may have the password in their frames, and texts of a server.
        raise problem

    async def _ask(
        self, host: Host, attributes: str, server_settings: dict[str, str], password: SecretStr | None
    ) -> asyncpg.Connection:
        try:
            tls = self._dsn.tls.for_driver()
        except ConnectionStringInvalid as error:
            raise self._unusable(f"{error}.") from None
        if self._dsn.options is not None:
            server_settings = {"options": self._dsn.options, **server_settings}
        return await asyncpg.connect(
            host=host.name,
            port=host.port,
            user=self._dsn.user,
            database=self._dsn.database,
            # As a function: the driver would look for another one itself if there were none.
            password=lambda: None if password is None else password.get_secret_value(),
            ssl=tls,
            direct_tls=self._dsn.tls.direct,
            target_session_attrs=attributes,
            timeout=self._dsn.connect_seconds or _SECONDS,
            server_settings=server_settings,
        )

    def _answered(self, error: Exception) -> StoreError:
        """Return what an answer of the server, or of the driver, means."""
        sqlstate = getattr(error, "sqlstate", None)
        if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
            wanted = self._dsn.target_session_attrs
            return StoreUnavailable(
                self._store, f"the server is not what target_session_attrs={wanted} asks for"
            )
        if isinstance(error, asyncpg.ClientConfigurationError) or not isinstance(sqlstate, str):
            if isinstance(error, ValueError):
                return self._unusable("the driver cannot use what it says.")
            return StoreUnavailable(self._store, str(error) or type(error).__name__)
        text = getattr(error, "message", None) or str(error)
        if sqlstate[:2] not in _OUTAGES or (sqlstate == "08P01" and _POOLER.search(text)):
            return self._unusable(f"{text}.", sqlstate=sqlstate)
        return StoreUnavailable(self._store, text, sqlstate=sqlstate)

    def _network(self, error: Exception) -> StoreError:
        """Return what it means that no session came about."""
        if isinstance(error, ssl.SSLCertVerificationError):
            if error.verify_code in _HOSTNAME_MISMATCH:
                fix = "The host has to be a name that is in the server's certificate."
            else:
                fix = "Its sslrootcert has to be the certificates of who has signed the server's."
            return self._unusable(f"the server's certificate is not trusted: {error.verify_message}. {fix}")
        if isinstance(error, ssl.SSLError):
            reason = (error.reason or "").replace("_", " ").lower()
            if _TLS_REFUSALS.search(error.reason or ""):
                return self._unusable(f"TLS with the server does not come about: {reason}.")
            return StoreUnavailable(
                self._store, f"TLS with the server broke off: {reason or 'no reason given'}"
            )
        if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
            return self._unusable("the server offers no TLS, and its sslmode demands it.")
        if isinstance(error, socket.gaierror):
            return StoreUnavailable(self._store, f"the name of its host is not found ({error.strerror})")
        if isinstance(error, TimeoutError | asyncio.TimeoutError) and not str(error):
            seconds = self._dsn.connect_seconds or _SECONDS
            return StoreUnavailable(self._store, f"no answer within {seconds:g} s")
        return StoreUnavailable(self._store, str(error) or type(error).__name__)

    def _unusable(self, problem: str, *, sqlstate: str | None = None) -> StoreUnusable:
        return StoreUnusable(self._store, f"{problem} Correct {self._setting}.", sqlstate=sqlstate)


def version_problem(version: tuple[int, ...]) -> str | None:
    """Return a sentence if a server of this version is too old, None if it is supported."""
    if version[0] >= OLDEST:
        return None
    told = ".".join(str(part) for part in version[:2])
    return f"it is PostgreSQL {told}, and Syncline needs {OLDEST} or newer."


def _keep_alive(connection: asyncpg.Connection, said: Keepalive) -> None:
    """Set what the string says of the client's own socket."""
    transport = connection._transport  # noqa: SLF001 - the driver has no door to it
    raw = transport.get_extra_info("socket")
    if raw is None or raw.family == socket.AF_UNIX:
        return
    if not said.on:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        return
    for option, value in (
        ("TCP_KEEPIDLE", said.idle),
        ("TCP_KEEPINTVL", said.interval),
        ("TCP_KEEPCNT", said.count),
        ("TCP_USER_TIMEOUT", said.user_timeout_ms),
    ):
        if value is not None and hasattr(socket, option):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
