"""Waits: saying whom a step waits for when it takes long, instead of being silent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from syncline.adoption.capture import sql
from syncline.adoption.locks import told
from syncline.adoption.steps import Step
from syncline.errors import StoreError
from syncline.stores.postgres import PostgresStore

__all__ = ["OnWait", "waits_told"]

OnWait = Callable[[str], object]

_SILENCE: Final = 5.0


@asynccontextmanager
async def waits_told(
    store: PostgresStore, connection: asyncpg.Connection, step: Step, on_wait: OnWait
) -> AsyncIterator[None]:
    """While the step is taken on `connection`, say every few seconds who keeps it waiting, if anybody."""
    watching = asyncio.create_task(_watch(store, connection.get_server_pid(), step, on_wait))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(store: PostgresStore, pid: int, step: Step, on_wait: OnWait) -> None:
    while True:
        await asyncio.sleep(_SILENCE)
        try:
            async with store.driver() as connection:
                rows = await connection.fetch(sql("blockers"), pid)
        except StoreError:
            # Nobody else is told less because a pool has no second connection.
            continue
        if rows:
            on_wait(f"Still waiting for {'; '.join(told(row) for row in rows)}: {step.sentence}")
