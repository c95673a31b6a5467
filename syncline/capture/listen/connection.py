"""The listen connection to one write-db: LISTEN, the lease, and every query of a listener."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar
from uuid import uuid4

import asyncpg

from syncline import names
from syncline.capture.install.steps import LISTENER, QUIET, STATE, qualified
from syncline.capture.listen.debounce import Snapshot
from syncline.errors import StoreUnavailable
from syncline.masking import error_text
from syncline.sql import literal, statements_of
from syncline.stores.horizon import HORIZON, NEXT_TRANSACTION
from syncline.stores.tenants import reading, writing

__all__ = ["LEASE_SECONDS", "ListenConnection", "NotifyUpdate", "Obstacle", "in_batches", "obstacle"]

LEASE_SECONDS: Final = 30.0
"""How long writers trust the lease; it is renewed three times in that time."""

_FROZEN_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 15.0
_AT_ONCE: Final = 100
"""Schemas per statement."""

_sql = statements_of("syncline.capture.listen")
_HAS_LISTENER: Final = "SELECT to_regclass('syncline.listener') IS NOT NULL"
_STANDBY: Final = "SELECT pg_is_in_recovery()"
_PREPARES: Final = "SELECT current_setting('max_prepared_transactions') <> '0'"

_PAYLOAD: Final = re.compile(r"(?P<xid>[0-9]{1,20}) (?P<schema>[^\x00]{1,63})")
"""Payload of our trigger: an xid8 has no more digits, an identifier no more letters."""
_HIGHEST_XID: Final = 2**63 - 1
_LISTENER: Final = qualified(*LISTENER)

_Heard = Callable[[str, int], None]
AnswerT = TypeVar("AnswerT")


class NotifyUpdate(NamedTuple):
    """Which schemas' writers are set to notify or not."""

    schemas: frozenset[str]
    newly_enabled: frozenset[str]
    """Those schemas that changed."""
    problem: str | None
    """Why other schemas could not be updated, if any."""


class Obstacle(NamedTuple):
    """Why no notification can be received from a write-db, and how to fix it: a sentence each."""

    problem: str
    fix: str


async def obstacle(ask: Callable[[str], Awaitable[object]]) -> Obstacle | None:
    """Return what prevents notifications from a write-db; None if its writers may notify.

    `ask` fetches one value from it.
    """
    if await ask(_STANDBY):
        return Obstacle(
            "it is a standby, which has no LISTEN",
            "Rely on the Schedules, or point the workers' write-db to the primary.",
        )
    if not await ask(_HAS_LISTENER):
        return Obstacle(
            "none of its schemas notifies",
            "Run `syncline migrate` or `syncline graph adopt` to install the triggers.",
        )
    if await ask(_PREPARES):
        return Obstacle(
            "max_prepared_transactions is not 0, and a transaction that notifies cannot be prepared",
            "If it uses no prepared transactions, set that to 0 and restart the server; else rely on "
            "the Schedules, with SYNCLINE_NOTIFY=false on the workers.",
        )
    return None


class ListenConnection:
    """A dedicated connection to one write-db. `name` identifies it among the workers that compete for it.

    Calls run one after the other. Each raises the driver's error, or TimeoutError; the connection is unusable
    after that.
    """

    def __init__(self, connection: asyncpg.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._turn = asyncio.Lock()
        self._heard: _Heard | None = None
        self._token = uuid4().hex
        self._echo = asyncio.Event()
        self._lost = asyncio.Event()
        self.answered_at = time.monotonic()
        """When the write-db last answered a query, on the monotonic clock."""
        connection.add_termination_listener(lambda _: self._lost.set())

    async def wait_lost(self, seconds: float | None) -> None:
        """Wait `seconds`, or forever; raise StoreUnavailable as soon as the connection has ended."""
        try:
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        except TimeoutError:
            return
        raise StoreUnavailable(self._name, "the connection has ended")

    async def problem(self) -> str | None:
        """Return why no notification can be received, and the fix; None if writers may notify."""
        found = await obstacle(self._value)
        return None if found is None else f"{found.problem}. {found.fix}"

    async def take(self) -> bool:
        """Try to become the listener; return False if another worker is. A frozen one is terminated."""
        if await self._value(_sql("lock"), self._name):
            return True
        await self._value(_sql("evict"), self._name, _FROZEN_SECONDS)
        return False

    async def listen(self, heard: _Heard) -> None:
        """Call `heard` with the schema and transaction that each notification claims.

        Any role that may connect can send one: the schema may not exist, the transaction may be made up.
        """
        self._heard = heard
        await self._ask(self._connection.add_listener, names.WRITE_CHANNEL, self._receive)

    async def check(self) -> None:
        """Raise StoreUnavailable unless a notification sent here arrives here."""
        self._echo.clear()
        await self._value("SELECT pg_notify($1, $2)", names.WRITE_CHANNEL, self._token)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._echo.wait()
        except TimeoutError as error:
            problem = "notifications do not arrive; a pooler in between has to keep sessions"
            raise StoreUnavailable(self._name, problem) from error

    async def snapshot(self) -> Snapshot:
        """Return a snapshot of the write-db's transactions."""
        [row] = await self._rows(_sql("snapshot", horizon=HORIZON, next=NEXT_TRANSACTION))
        return Snapshot(xmin=row["xmin"], xmax=row["xmax"])

    async def last_low_watermark(self) -> int | None:
        """Return the transaction below which the last listener had missed nothing; None before the first."""
        rows = await self._ask(self._read, [_LISTENER], _sql("last"), self._name)
        return rows[0]["heard_below"] if rows else None

    async def renew(self, heard_below: int) -> bool:
        """Renew the lease; return whether it had lapsed: then writers may not have notified."""
        parameters = (self._name, LEASE_SECONDS, str(heard_below))
        [row] = await self._ask(self._write, [_LISTENER], _sql("renew"), *parameters)
        return bool(row["lapsed"])

    async def throttle(self, schema: str, seconds: float) -> None:
        """Mute the schema's writers for `seconds`."""
        state = qualified(schema, STATE)
        throttle = _sql("throttle", state=state, quiet=literal(qualified(schema, QUIET)))
        await self._ask(self._write, [state], throttle, seconds)

    async def muted(self, schema: str) -> float:
        """Return for how many seconds the schema's writers are muted; 0 if they are not, or it is unknown."""
        state = qualified(schema, STATE)
        try:
            rows = await self._ask(self._read, [state], _sql("muted", state=state))
        except asyncpg.PostgresError:
            return 0.0
        return float(rows[0]["seconds"]) if rows else 0.0

    async def able(self, schemas: Sequence[str]) -> frozenset[str]:
        """Return which of the schemas have notification triggers."""
        return frozenset(row["schema"] for row in await self._rows(_sql("able"), schemas))

    async def want(self, wanted: Mapping[str, bool]) -> NotifyUpdate:
        """Set whether the writers of these schemas notify. A schema that fails does not stop the others."""
        updated: set[str] = set()
        newly_enabled: set[str] = set()
        problem: str | None = None
        waiting = list(in_batches(list(wanted)))
        while waiting:
            schemas = waiting.pop()
            try:
                newly_enabled |= await self._want(schemas, wanted)
                updated.update(schemas)
            except asyncpg.PostgresError as error:
                problem = error_text(error)
                if len(schemas) > 1:
                    waiting += [[schema] for schema in schemas]
        return NotifyUpdate(frozenset(updated), frozenset(newly_enabled), problem)

    async def _want(self, schemas: Sequence[str], wanted: Mapping[str, bool]) -> frozenset[str]:
        """Set whether the writers of all these schemas notify, or raise; return the schemas that changed."""
        changes = [
            _sql(
                "want",
                state=qualified(schema, STATE),
                wanted=str(wanted[schema]).lower(),
                schema=literal(schema),
            )
            for schema in schemas
        ]
        changed = ", ".join(f"c{number} AS ({change})" for number, change in enumerate(changes))
        all_of_them = " UNION ALL ".join(f"TABLE c{number}" for number in range(len(changes)))
        states = [qualified(schema, STATE) for schema in schemas]
        rows = await self._ask(self._write, states, f"WITH {changed} {all_of_them}")
        return frozenset(row["schema"] for row in rows)

    async def _read(self, tables: Sequence[str], query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        async with reading(self._connection, tables):
            rows: Sequence[asyncpg.Record] = await self._connection.fetch(query, *arguments)
            return rows

    async def _write(self, tables: Sequence[str], query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        async with writing(self._connection, tables):
            rows: Sequence[asyncpg.Record] = await self._connection.fetch(query, *arguments)
            return rows

    async def _value(self, query: str, *arguments: object) -> object:
        return await self._ask(self._connection.fetchval, query, *arguments)

    async def _rows(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        return await self._ask(self._connection.fetch, query, *arguments)

    async def _ask(self, ask: Callable[..., Awaitable[AnswerT]], *arguments: object) -> AnswerT:
        async with self._turn, asyncio.timeout(_ANSWER_SECONDS):
            answer = await ask(*arguments)
        self.answered_at = time.monotonic()
        return answer

    def _receive(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        if payload == self._token:
            self._echo.set()
            return
        claim = _PAYLOAD.fullmatch(payload)
        if self._heard is not None and claim is not None and int(claim["xid"]) <= _HIGHEST_XID:
            self._heard(claim["schema"], int(claim["xid"]))


def in_batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the items in order, in batches for one statement each."""
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))
