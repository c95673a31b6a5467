"""One Postgres store: a bounded pool; raw driver connections for COPY, sessions for everything else."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakSet

import asyncpg
from sqlalchemy import AdaptedConnection, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from syncline.errors import (
    PoolerUnsupported,
    RowsFiltered,
    SettingsInvalid,
    StatementOutdated,
    StoreError,
    StoreName,
    StoreRejected,
    StoreUnavailable,
)
from syncline.masking import (
    FROM_CODE,
    error_text,
    raised_by_code,
    server_message,
    source_function,
    without_values,
)
from syncline.stores.connection import Connection
from syncline.stores.dsn import ConnectionStringInvalid, Host, parse_dsn
from syncline.stores.floor import BEHIND, Floor, ServerBehind, is_behind
from syncline.stores.leases import leased
from syncline.stores.login import Login
from syncline.stores.session import begin_session, keeps_sessions
from syncline.stores.watch import Patience, Watch, look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr

    from syncline.stores.login import Usability

_UNAVAILABLE = {
    "08",  # connection exception
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources
    "55",  # object not in prerequisite state: lock not available
    "57",  # operator intervention: shutdown, cancelled, statement timeout
    "58",  # system error outside Postgres itself
    "25006",  # read-only transaction: a standby that has yet to be promoted, or a primary that was demoted
    "25P03",  # idle_in_transaction_session_timeout
    "25P04",  # transaction_timeout
}
"""SQLSTATEs and classes (PostgreSQL documentation, appendix A) for which a retry can help."""

_NOT_ALLOWED = "42501"

_LIMITS: Final = {
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
    "55P03": "lock_timeout",
    "57014": "statement_timeout, unless an operator cancelled it",
    "57P05": "idle_session_timeout",
}
"""The settings behind these SQLSTATEs. Sessions start without them, so a role or database enforces them."""

_OUTDATED: Final = {
    "26000",  # the prepared statement does not exist: another client discarded it, or all
    "42P05",  # it exists already
}

_PROVED_SECONDS: Final = 60.0
"""How long a pooler that was found to keep sessions is not tested again."""

_DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Raised by a connection in use while the server is closing it.
    asyncpg.InternalClientError,
    OSError,
    PoolTimeout,
    ServerBehind,
)
_POLICY = "row-level security policy"
_FILTERS = "check_enable_rls"
"""The server function that raises under `row_security = off`, in any message language."""


def postgres_error(
    store: str,
    sqlstate: str,
    message: str,
    *,
    constraint: str | None = None,
    function: str | None = None,
) -> StoreError:
    """Map a Postgres error to ours: retryable or not by its SQLSTATE.

    `function` is the C function in PostgreSQL's source that raised it. The text goes into run histories, so
    it contains no row values.
    """
    by_code = raised_by_code(sqlstate, function=function)
    if sqlstate == _NOT_ALLOWED and not by_code and (function == _FILTERS or _POLICY in message):
        return RowsFiltered(store, without_values(message), sqlstate=sqlstate, said=message)
    kind = StoreUnavailable if _UNAVAILABLE & {sqlstate, sqlstate[:2]} else StoreRejected
    problem = FROM_CODE if by_code else without_values(message)
    if sqlstate in _LIMITS and not by_code:
        problem = f"{problem} (the setting is {_LIMITS[sqlstate]})"
    if sqlstate == _NOT_ALLOWED and not by_code:
        problem = f"{problem}; `syncline doctor` names the GRANT"
    return kind(store, problem, sqlstate=sqlstate, constraint=constraint, said=message, by_code=by_code)


def map_driver_error(store: str, error: BaseException) -> StoreError | None:
    """Map a driver error to ours, or return None if it is not one.

    Retryable by SQLSTATE. Failures to connect at all are mapped by `Login`.
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    if is_behind(error):
        return StoreUnavailable(store, BEHIND)
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate in _OUTDATED or isinstance(
        error, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError
    ):
        return StatementOutdated(store, sqlstate=sqlstate)
    if isinstance(sqlstate, str):
        return postgres_error(
            store,
            sqlstate,
            server_message(error),
            constraint=getattr(error, "constraint_name", None),
            function=source_function(error),
        )
    if isinstance(error, (*_DRIVER_ERRORS, TimeoutError)):
        return StoreUnavailable(store, error_text(error) or type(error).__name__)
    return None


async def _end(connection: asyncpg.Connection) -> None:
    connection.terminate()


async def _tear(connection: AsyncConnection) -> None:
    """Close a connection even while it is used, and release its place in the pool."""
    raw = await connection.get_raw_connection()
    if raw.driver_connection is not None:
        raw.driver_connection.terminate()
    await connection.invalidate()
    await connection.close()


@dataclass
class _Times:
    """When something was found out about all connections, by the clock of the process."""

    outdated: float = float("-inf")
    """That older ones may have prepared statements for tables that have changed since."""
    proved: float = float("-inf")
    """That a pooler keeps sessions."""


class PostgresStore:
    """A pool of connections to one database. Safe for concurrent use within one event loop."""

    def __init__(
        self,
        name: str,
        dsn: "SecretStr",
        *,
        pool_size: int,
        application_name: str,
        owner_role: str | None = None,
        setting: str = "its connection string",
        password_command: "Sequence[str] | None" = None,
        usability: "Usability | None" = None,
        patience: Patience | None = None,
    ) -> None:
        """Connect lazily. `setting` names the source of the connection string, for error messages.

        Raises SettingsInvalid when the string cannot be used.
        """
        self.name: str = name
        self.owner_role = owner_role
        """Owner of the graphs' schemas; None: the role of the connections."""
        problem = None
        try:
            parsed = parse_dsn(dsn.get_secret_value())
            self.name = StoreName(name, parsed.place)
            self.login = Login(
                self.name,
                parsed,
                setting=setting,
                password_command=password_command,
                usability=usability,
            )
        except ConnectionStringInvalid as error:
            problem = str(error)
        if problem is not None:
            raise SettingsInvalid(f"{setting} of store '{name}': {problem}.")
        self._application_name = application_name
        self._patience = patience or Patience()
        self._opened: WeakSet[Connection] = WeakSet()
        self.floor = Floor()
        """What a server must have for what is read by this object; nothing, but for `with_floor`."""
        self._times = _Times()
        self._proving = asyncio.Lock()
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            pool_use_lifo=True,
        )
        event.listen(self._engine.sync_engine, "checkout", self._refuse_useless)

    @property
    def place(self) -> str:
        """Host and database, for messages."""
        return self.login.dsn.place

    def with_floor(self) -> Self:
        """Return the same pool with a `floor` of its own, for reads that depend on each other.

        Its address may lead to several servers: each of `syncline.stores.tenants.reading` raises
        StoreUnavailable on one that has less than the floor.
        """
        store = copy(self)
        store.floor = Floor()
        return store

    @asynccontextmanager
    async def alone(self, purpose: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection outside the pool, for any time; driver errors are mapped.

        `purpose` becomes part of its application name; `settings` apply to its session.
        """
        with self.errors_mapped():
            connection = await self._connect(purpose, **settings)
            try:
                with leased(self.name, lambda: _end(connection)), self._loss_raised(connection):
                    yield connection
            finally:
                connection.terminate()

    async def _dial(self, purpose: str, at: Host | None = None) -> Connection:
        """Connect, to the host `at` if given. Requests nothing that a pooler would not know."""
        called = f"{self._application_name} {purpose}".rstrip()
        connection = await self.login.connect(called, seconds=self._patience.connect, at=at)
        connection.called = called
        return connection

    async def _connect(self, purpose: str = "", **settings: str) -> Connection:
        """Connect and begin a session. Raises PoolerUnsupported if the pooler keeps none."""
        seconds = self._patience.connect
        connection = await self._dial(purpose)
        try:
            pid, direct = connection.get_server_pid(), True
            if not await begin_session(connection, settings, only_at=pid, seconds=seconds):
                # The server process differs from the one announced: there is a pooler in between.
                await self._require_sessions(connection)
                await begin_session(connection, settings, only_at=None, seconds=seconds)
                pid = await connection.fetchval("SELECT pg_catalog.pg_backend_pid()", timeout=seconds)
                direct = False
            connection.watched_by(
                Watch(
                    self._patience,
                    look=lambda waited: look(
                        partial(self._dial, "look-out", connection.host),
                        pid=pid,
                        age=time.monotonic() - connection.opened_at if direct else None,
                        waited=waited,
                        patience=self._patience,
                    ),
                    give_up=connection.give_up,
                )
            )
        except BaseException:
            connection.terminate()
            raise
        self._opened.add(connection)
        self.login.accepted()
        return connection

    async def _require_sessions(self, connection: Connection) -> None:
        # One at a time: each needs a second connection, and the pooler may have few.
        async with self._proving:
            if time.monotonic() - self._times.proved < _PROVED_SECONDS:
                return
            if not await keeps_sessions(
                connection,
                partial(self._dial, "pooler check", connection.host),
                seconds=self._patience.connect,
            ):
                raise self.login.refused(PoolerUnsupported(self.name))
            self._times.proved = time.monotonic()

    def _refuse_useless(self, connection: AdaptedConnection, _record: object, _proxy: object) -> None:
        # The driver notices a closed connection itself, so no round trip per checkout is needed; the pool
        # answers this error with a new connection.
        driver = connection.driver_connection
        if driver.is_closed():
            raise DisconnectionError("the server closed this connection")
        if driver.opened_at < self._times.outdated:
            raise DisconnectionError("a table has changed since its statements were prepared")

    @contextmanager
    def _loss_raised(self, connection: Connection) -> Iterator[None]:
        """Replace later errors with the reason why the watch closed the connection, if it did."""
        try:
            yield
        except Exception as error:
            if connection.lost is None:
                raise
            raise StoreUnavailable(self.name, connection.lost) from error

    @contextmanager
    def errors_mapped(self) -> Iterator[None]:
        """Raise StoreUnavailable or StoreRejected instead of a driver error; StoreUnusable passes."""
        try:
            yield
        except StoreError:
            raise
        except (DBAPIError, *_DRIVER_ERRORS) as error:
            mapped = map_driver_error(self.name, error)
            if mapped is None:
                raise
            if isinstance(mapped, StatementOutdated):
                # Other connections of the pool have prepared the same statements.
                self._times.outdated = time.monotonic()
                # Or it is another client's session by now, which the next connection checks.
                self._times.proved = float("-inf")
            raise mapped from error

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield an asyncpg connection outside a transaction; driver errors are mapped.

        After an exception the connection is discarded, with any half-done COPY or session lock.
        """
        with self.errors_mapped():
            async with self._engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver = raw.driver_connection
                if driver is None:
                    raise StoreUnavailable(self.name, "the pool returned no connection")
                try:
                    with leased(self.name, lambda: _tear(connection)), self._loss_raised(driver):
                        driver.floor = self.floor
                        yield driver
                except BaseException:
                    driver.terminate()
                    await connection.invalidate()
                    raise

    @asynccontextmanager
    async def begin(self, *, schema: str | None = None) -> AsyncIterator[AsyncConnection]:
        """Yield a SQLAlchemy connection in a transaction that commits at the end; errors are mapped.

        With `schema`, unqualified tables are found there.
        """
        with self.errors_mapped():
            async with self._translated(schema).begin() as connection:
                with leased(self.name, lambda: _tear(connection)):
                    yield connection

    @asynccontextmanager
    async def session(self, *, schema: str | None = None) -> AsyncIterator[AsyncSession]:
        """Yield an ORM session in a transaction that commits at the end; errors are mapped."""
        with self.errors_mapped():
            async with AsyncSession(self._translated(schema)) as session, session.begin():
                with leased(self.name, session.invalidate):
                    yield session

    def _translated(self, schema: str | None) -> AsyncEngine:
        if schema is None:
            return self._engine
        return self._engine.execution_options(schema_translate_map={None: schema})

    async def close(self) -> None:
        """Close every connection, by force if it does not close in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience.close):
                await self._engine.dispose()
        for connection in list(self._opened):
            if not connection.is_closed():
                connection.terminate()
