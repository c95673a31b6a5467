"""The swap: two schemas change places in one transaction, with rights and what others have there.

Schemas are renamed, which locks no table. Schema public is others' too: there the tables change places, and
readers wait until the transaction ends.
"""

import time
from collections.abc import Sequence
from typing import Final

import asyncpg

from syncline.errors import StoreRejected
from syncline.provider import GraphSchema
from syncline.shadow.dependents import Dependent, Dependents
from syncline.sql import quoted, statements_of, string_literal
from syncline.stores.postgres import map_driver_error

__all__ = ["SHARED", "LocksHeldError", "NotCarriedError", "SchemaSwap"]

_sql = statements_of("syncline.shadow")

SHARED: Final = "public"
"""The schema that is never renamed."""
_NAMED: Final = 5
_PAUSE: Final = 0.7
"""Seconds for which readers may wait for locks of one try; then it is given up."""


class LocksHeldError(Exception):
    """Others have held locks for longer than readers may wait; a later try may get them."""


class NotCarriedError(Exception):
    """Something of others cannot come along, so nothing is swapped."""


class SchemaSwap:
    """A swap of a graph's schema with its shadow's; `dependents` come along."""

    def __init__(self, live: GraphSchema, shadow: GraphSchema, dependents: Dependents | None) -> None:
        self._live, self._shadow, self._dependents = live, shadow, dependents
        self._began = 0.0

    async def run(
        self, driver: asyncpg.Connection, *, live_prefix: str, shadow_prefix: str, shadow_provider: str
    ) -> float:
        """Swap them, within the caller's transaction; return when it began to take locks.

        Raises LocksHeldError or NotCarriedError: then the transaction is to be rolled back.
        """
        live, shadow = self._live.schema, self._shadow.schema
        surplus: Sequence[str] = ()
        carried: Sequence[Dependent] = ()
        moves: Sequence[Dependent] = ()
        locks: Sequence[Dependent] = ()
        if self._dependents is not None:
            surplus, carried = await self._dependents.read(driver)
            locks = await self._dependents.locks(driver)
            moves = await self._dependents.moves(driver) if live == SHARED else ()
        grants = [row["statement"] for row in await driver.fetch(_sql("grants"), live, shadow)]
        for statement in (*surplus, *grants):
            await driver.execute(statement)
        self._began = time.monotonic()
        if locks:
            # One statement, whose timeout is that of all: between two locks a reader may come who has one
            # and waits for the other.
            together = "; ".join(lock.statement for lock in locks)
            named = ", ".join(lock.name for lock in locks[:_NAMED])
            block = f"DO {string_literal(f'BEGIN {together}; END')}"
            await self._carry(driver, Dependent(name=named, statement=block))
        if moves:
            for move in moves:
                await self._carry(driver, move)
        else:
            # What is left of the time of the locks is not its limit: it waits for nobody.
            await driver.execute("SET LOCAL statement_timeout = 0")
            await driver.execute(_sql("rename", live=quoted(live), shadow=quoted(shadow)))
        await driver.execute("SET LOCAL statement_timeout = 0")
        await driver.execute(
            _sql(
                "swap",
                live=quoted(live),
                shadow=quoted(shadow),
                live_prefix=string_literal(live_prefix),
                shadow_prefix=string_literal(shadow_prefix),
                shadow_provider=string_literal(shadow_provider),
            )
        )
        for dependent in carried:
            await self._carry(driver, dependent)
        await driver.execute("SET LOCAL statement_timeout = 0")
        return self._began

    async def _carry(self, driver: asyncpg.Connection, dependent: Dependent) -> None:
        """Run a statement, in what is left of the time: of all locks together, so not a timeout for each."""
        left = round((self._began + _PAUSE - time.monotonic()) * 1000)
        held = f"others have had locks on {dependent.name} for {_PAUSE} s, again and again"
        if left <= 0:
            raise LocksHeldError(held)
        await driver.execute(f"SET LOCAL statement_timeout = {left}")
        try:
            await driver.execute(dependent.statement)
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            raise LocksHeldError(held) from None
        except asyncpg.PostgresError as error:
            problem = map_driver_error(self._live.store.name, error)
            if not isinstance(problem, StoreRejected):
                raise  # a lost connection: what became of the transaction is for a retry to see
            raise NotCarriedError(
                f"{dependent.name} cannot come along, so nothing was changed: {problem}"
            ) from error
