"""Lane lock: lanes of a graph's loads share it while they apply batches; any other batch has it alone.

Postgres grants it in the order in which it is asked for, and would let a session wait for ever. So a waiting
one looks now and then which sessions have it. A lane whose process is frozen within a COPY is terminated:
the server has no limit for a session that waits for its client within a statement, and the kernel of a frozen
process answers keepalives. Lanes at work are waited for. Any other holder is named in an error: any role that
may connect can take the lock, and only sessions of the worker's role are terminated.
"""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg

from syncline.engine.schema_transaction import HeldSchema
from syncline.engine.template import sql
from syncline.errors import LoadBlocked
from syncline.provider import SyncContext
from syncline.quoting import shown
from syncline.sql import literal

__all__ = ["lane_session", "lane_transaction"]

_LOOK_SECONDS = 10.0
"""Seconds of waiting after which it looks which sessions have the lock, and asks for it again."""
_FROZEN_SECONDS = 60.0
"""A lane that sends nothing for so long is frozen. One at work gives up by itself before
(`syncline.engine.range_drain`)."""
_STRANGE_SECONDS = 20.0
"""Longest wait for a session that is no lane's, since it was first seen."""
_LANES_SECONDS = 300.0
"""Longest wait for lanes at work: their batches take seconds."""
_PAUSE: Final = 5
"""Seconds after the next look until which no lane begins a batch: so none comes first each time."""


def lane_session(schema: str) -> str:
    """Return the name of a session while it is in a lane's batch, as Postgres shows it."""
    return f"syncline lane {schema}".encode()[:63].decode(errors="ignore")


@asynccontextmanager
async def lane_transaction(
    context: SyncContext,
    held: HeldSchema,
    *first: str,
    alone: bool,
    pausing: bool = True,
    named: Sequence[str] = (),
    on_wait: Callable[[], None] = lambda: None,
) -> AsyncIterator[asyncpg.Connection]:
    """Yield the connection in a transaction on the schema that has the lock: `alone`, or with other lanes.

    The statements `named` run at its start before it waits for the lock, `first` once it has it. `on_wait` is
    called after each look at its holders. `pausing`: from then on, lanes begin no batch while it waits to be
    alone. Raise LoadBlocked if a session that is no lane's has the lock, or a lane has it for minutes.
    """
    shared, milliseconds = "" if alone else "_shared", str(round(_LOOK_SECONDS * 1000))
    lock = sql("lane_lock", schema=literal(held.schema), shared=shared, milliseconds=milliseconds).strip()
    wait = _Wait(context, held, alone=alone, pausing=alone and pausing)
    async with AsyncExitStack() as transaction:
        while True:
            begun = held.transaction(*named, lock, *wait.over, *first)
            try:
                target = await transaction.enter_async_context(begun)
            except asyncpg.LockNotAvailableError:
                await wait.look()
                on_wait()
            else:
                break
        yield target


class _Wait:
    """One wait for the lock, and what its looks have seen."""

    def __init__(self, context: SyncContext, held: HeldSchema, *, alone: bool, pausing: bool) -> None:
        self._context, self._held = context, held
        self._alone, self._pausing = alone, pausing
        self._began = time.monotonic()
        self._silent: dict[tuple[int, str], float] = {}
        self._strange: dict[int | None, float] = {}
        self.over: Sequence[str] = ()
        """The statements that end the pause of lanes, once it has the lock."""

    async def look(self) -> None:
        """Terminate frozen lanes; raise LoadBlocked for other holders, and for lanes that take too long."""
        schema = self._held.schema
        async with self._held.transaction() as target:
            if self._pausing:
                await target.execute(sql("lanes_stop", seconds=str(round(_LOOK_SECONDS) + _PAUSE)))
                self.over = (sql("lanes_stop", seconds="0").strip(),)
            rows = await target.fetch(sql("lane_holders"), schema, lane_session(schema))
        now = time.monotonic()
        silent = [(row["pid"], row["silent"]) for row in rows if row["silent"] is not None]
        self._silent = {each: self._silent.get(each, now) for each in silent}
        self._strange = {row["pid"]: self._strange.get(row["pid"], now) for row in rows if not row["ours"]}
        for (pid, at), since in self._silent.items():
            if now - since >= _FROZEN_SECONDS:
                await self._end(pid, at)
        strange = {pid for pid, since in self._strange.items() if now - since >= _STRANGE_SECONDS}
        if self._alone and now - self._began >= _LANES_SECONDS:
            strange = {row["pid"] for row in rows}
        if strange:
            raise LoadBlocked(
                self._context.graph.slug,
                holders=[_described(row) for row in rows if row["pid"] in strange],
                pids=[pid for pid in sorted(strange, key=lambda pid: pid or 0) if pid is not None],
                seconds=now - self._began,
            )

    async def _end(self, pid: int, at: str) -> None:
        """Terminate a frozen lane's session: its transaction is rolled back, and its range left as it was."""
        schema = self._held.schema
        end = sql("lane_end", holders=sql("lane_holders"))
        async with self._held.transaction() as target:
            ended = await target.fetchval(end, schema, lane_session(schema), pid, at)
        if ended:
            self._context.log.warning("frozen lane terminated", graph=self._context.graph.slug, pid=pid)


def _described(row: asyncpg.Record) -> str:
    """Describe a session that has the lock. Another role's application may be hidden from this one."""
    database = f"database {shown(row['database'])}"
    if row["pid"] is None:
        return f"a prepared transaction ({database})"
    application = "" if row["application_name"] is None else f"application {shown(row['application_name'])}, "
    return f"pid {row['pid']} of role {shown(row['role'] or 'unknown')} ({application}{database})"
