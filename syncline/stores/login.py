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
from dataclasses import dataclass
from typing import Final

import asyncpg
from pydantic import SecretStr

from syncline.errors import StoreError, StoreUnavailable, StoreUnusable
from syncline.stores.connection import Connection
from syncline.stores.conninfo import ConnectionStringInvalid
from syncline.stores.dsn import Dsn, Host
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


@dataclass(frozen=True)
class _Asked:
    application_name: str
    seconds: float


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

    async def connect(
        self, application_name: str, *, seconds: float = _SECONDS, at: Host | None = None
    ) -> Connection:
        """Return a new connection, to the host `at` if one is given.

        Each host has `seconds` to answer, unless the string says how many it has.
        Raise StoreUnusable when this process is refused, StoreUnavailable or the driver's error when the
        server does not answer.
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
        """Have it known that the store lets this process in."""
        self._usability.note(self._store, None)

    def refused(self, problem: StoreUnusable) -> StoreUnusable:
        """Have it known that the store refuses this process, and return why."""
        self._usability.note(self._store, problem)
        return problem

    async def _first(self, hosts: list[Host], asked: "_Asked") -> Connection:
        """Return a connection to the first of the hosts that answers and is what is asked for."""
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
            # The driver's own, which may quote what it was given.
            problem = self._unusable("the driver cannot use what it says.")
        else:
            old = version_problem(connection.get_server_version())
            if old is None:
                connection.host = host
                connection.keep_alive(self._dsn.keepalive)
                return connection
            connection.terminate()
            problem = StoreUnusable(self._store, old)
        # Not chained: what the driver and the server say of a string may quote it.
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
            # As a function: the driver would look for another one itself if there were none.
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

    def _network(self, error: Exception, seconds: float) -> StoreError:
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
            return StoreUnavailable(self._store, f"no answer for {seconds:g} s when connecting")
        return StoreUnavailable(self._store, str(error) or type(error).__name__)

    def _unusable(self, problem: str, *, sqlstate: str | None = None) -> StoreUnusable:
        return StoreUnusable(self._store, f"{problem} Correct {self._setting}.", sqlstate=sqlstate)


def version_problem(version: tuple[int, ...]) -> str | None:
    """Return a sentence if a server of this version is too old, None if it is supported."""
    if version[0] >= OLDEST:
        return None
    told = ".".join(str(part) for part in version[:2])
    return f"it is PostgreSQL {told}, and Syncline needs {OLDEST} or newer."
