"""One Postgres store: a bounded pool, raw driver connections for COPY, sessions for everything else."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import AdaptedConnection, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from syncline.errors import StoreError, StoreRejected, StoreUnavailable
from syncline.masking import FROM_CODE, error_text, raised_by_code, server_message, without_values
from syncline.stores.leases import leased

if TYPE_CHECKING:
    from pydantic import SecretStr

_UNAVAILABLE = {
    "08",  # connection exception
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources
    "55",  # object not in prerequisite state: lock not available
    "57",  # operator intervention: shutdown, cancelled, statement timeout
    "58",  # system error outside Postgres itself
    "25006",  # read-only transaction: a standby that has yet to be promoted, or a primary that was demoted
}
"""SQLSTATEs and their classes (PostgreSQL documentation, appendix A) that a retry can help."""

_NOT_ALLOWED = "42501"

_DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What a connection says that is used while the server's goodbye is on its way.
    asyncpg.InternalClientError,
    OSError,
    PoolTimeout,
)


def postgres_error(
    store: str,
    sqlstate: str,
    message: str,
    *,
    constraint: str | None = None,
    function: str | None = None,
) -> StoreError:
    """Return our error for what Postgres answered: retryable or not by its SQLSTATE.

    `function` is where in PostgreSQL's source it comes from. The error's text goes into run histories, so
    there are no values of rows in it.
    """
    kind = StoreUnavailable if _UNAVAILABLE & {sqlstate, sqlstate[:2]} else StoreRejected
    by_code = raised_by_code(sqlstate, function=function)
    problem = FROM_CODE if by_code else without_values(message)
    if sqlstate == _NOT_ALLOWED and not by_code:
        problem = f"{problem}; `syncline doctor` names the GRANT"
    return kind(store, problem, sqlstate=sqlstate, constraint=constraint, said=message)


def map_driver_error(store: str, error: BaseException) -> StoreError | None:
    """Return our error for a driver error, or None if it is not one.

    Retryable by SQLSTATE; every failure to reach the server is retryable except refused credentials
    (class 28) and an unknown database (3D000).
    """
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):
        return postgres_error(
            store,
            sqlstate,
            server_message(error),
            constraint=getattr(error, "constraint_name", None),
            function=getattr(error, "server_source_function", None),
        )
    if isinstance(error, (*_DRIVER_ERRORS, TimeoutError)):
        return StoreUnavailable(store, error_text(error) or type(error).__name__)
    return None


def _refuse_closed(connection: AdaptedConnection, _record: object, _proxy: object) -> None:
    # The driver sees the server's goodbye by itself, so no round trip per checkout is needed to ask for it;
    # the pool answers this error with a new connection.
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server closed this connection")


async def _end(connection: asyncpg.Connection) -> None:
    connection.terminate()


async def _tear(connection: AsyncConnection) -> None:
    """Close a connection in spite of whoever uses it, and give its place in the pool back."""
    raw = await connection.get_raw_connection()
    if raw.driver_connection is not None:
        raw.driver_connection.terminate()
    await connection.invalidate()
    await connection.close()


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
    ) -> None:
        self.name = name
        self.owner_role = owner_role
        """Who owns the schemas of graphs; None: the role of the connections."""
        self._dsn = dsn
        self._application_name = application_name
        self._engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=30,
            pool_use_lifo=True,
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)

    @asynccontextmanager
    async def alone(self, purpose: str, **server_settings: str) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection beside the pool, for as long as it is needed; driver errors are mapped.

        `purpose` is part of its application name.
        """
        with self.errors_mapped():
            name = f"{self._application_name} {purpose}"
            connection = await self._connect(application_name=name, **server_settings)
            try:
                with leased(self.name, lambda: _end(connection)):
                    yield connection
            finally:
                connection.terminate()

    async def _connect(self, **server_settings: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._dsn.get_secret_value(),
            timeout=10,
            server_settings={
                "application_name": self._application_name,
                # A worker that vanished behind a network fault must not hold its graph's lock for hours.
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "3",
                "idle_in_transaction_session_timeout": "120000",
                # A batch is staged in a temporary table and read several times; taken only where one is used.
                "temp_buffers": "64MB",
                **server_settings,
            },
        )

    @contextmanager
    def errors_mapped(self) -> Iterator[None]:
        """Raise StoreUnavailable or StoreRejected in place of a driver error."""
        try:
            yield
        except StoreError:
            raise
        except (DBAPIError, *_DRIVER_ERRORS) as error:
            mapped = map_driver_error(self.name, error)
            if mapped is None:
                raise
            raise mapped from error

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield an asyncpg connection outside any transaction; driver errors are mapped.

        On an exception the connection is thrown away: a half-done COPY or a session lock goes with it.
        """
        with self.errors_mapped():
            async with self._engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver = raw.driver_connection
                if driver is None:
                    raise StoreUnavailable(self.name, "the pool returned no connection")
                try:
                    with leased(self.name, lambda: _tear(connection)):
                        yield driver
                except BaseException:
                    driver.terminate()
                    await connection.invalidate()
                    raise

    @asynccontextmanager
    async def begin(self, *, schema: str | None = None) -> AsyncIterator[AsyncConnection]:
        """Yield a SQLAlchemy connection in a transaction that commits at the end; errors are mapped.

        With `schema`, tables without a schema of their own are found there.
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
        """Close every connection."""
        await self._engine.dispose()
