"""Promotion: a shadow's result becomes the graph's live result, and the live one becomes the shadow.

The schemas in the graph-db are swapped by renaming; in the record, the providers are swapped and so are the
prefixes of the collections, which cannot be renamed. If the record is in the same database, all of this is
one transaction. If not, the schemas are swapped first. If it is interrupted between the two, no cycle does
harm: each schema stores its prefix, and a cycle that was given another one stops (SchemaMoved). The next
promotion, usually the next attempt, first updates the record.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline import names
from syncline.control.audit import Actor
from syncline.control.composition import parse_composition, swapped
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine.owed import acting_as
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.state import payloads
from syncline.engine.table_map import SchemaMap
from syncline.engine.visible import advance
from syncline.errors import ShadowInvalid, StoreRejected, VectorStoreRejected
from syncline.messages.operator import Promotion
from syncline.messages.sync import TableProgress
from syncline.migrations import migrate_bookkeeping
from syncline.shadow.dependents import Dependents
from syncline.shadow.lag import Progress, lags, progress_of_both, unknown_lag
from syncline.shadow.prepare import live_generation
from syncline.shadow.readers import lead_readers
from syncline.shadow.rows_of_others import rows_of_others
from syncline.shadow.swap import SHARED, LocksHeldError, NotCarriedError, SchemaSwap
from syncline.sql import quoted, statements_of, string_literal

__all__ = ["cut_off", "promote", "swap_with_shadow"]

_sql = statements_of("syncline.shadow")

_ACTION: Final = "promote"
_PATIENCE: Final = 60.0
_AGAIN: Final = 0.5
_RUNNING: Final = "a cycle was running all the time"
_MADE: Final = (
    "Make in schema '{shadow}' what it lacks (CREATE TABLE … (LIKE … INCLUDING ALL), with its rows), or move "
    "what is no part of the graph, and what is bound to it, to a schema of its own; `--force` swaps them "
    "without it"
)
_NOT_RENAMED: Final = (
    "its schema is public, and a promotion renames the schema with all that others and extensions have "
    "there; give the graph itself the shadow's provider or map by `syncline graph set --composition`: its "
    "next cycle writes what differs"
)
_MENDED: Final = (
    "Drop what is bound to the tables and make it again afterwards; give values and rows of others tables of "
    "their own; let the workers' role be a member of the role that owns the rest"
)
_AGAIN_LATER: Final = "Try again later; `{flag}` swaps them anyway, once neither is running"


async def promote(
    services: Services,
    graph: Graph,
    schema_map: SchemaMap,
    *,
    actor: Actor,
    force: bool = False,
    patience: float = _PATIENCE,
) -> Promotion:
    """Swap a graph and its shadow, and lead readers of the vector store to what is live then.

    As `swap_with_shadow`. An alias that could not be moved is named: the graph's next cycles move it.
    """
    done = await swap_with_shadow(services, graph, schema_map, actor=actor, force=force, patience=patience)
    try:
        await lead_readers(services, await services.graphs.get(graph.id), schema_map)
    except VectorStoreRejected as error:
        done = done.model_copy(update={"despite": (*done.despite, f"aliases were not moved: {error}")})
    return done


async def swap_with_shadow(
    services: Services,
    graph: Graph,
    schema_map: SchemaMap,
    *,
    actor: Actor,
    force: bool = False,
    patience: float = _PATIENCE,
    dependents: Dependents | None = None,
    action: str = _ACTION,
    catch_up: Callable[[], Awaitable[object]] | None = None,
) -> Promotion:
    """Swap a graph and its shadow, once per run, with an audit entry; return the result.

    The live graph is held, so that it reads nothing more, until the shadow is not running and has all that
    the live graph has; `catch_up` is called while it has not. `dependents` come along: without them, whatever
    others have in the live schema is a reason against it. Raises ShadowInvalid if there is no shadow, or no
    such moment in time, or such a reason; with `force` it is enough that neither is running.
    """
    actor = actor.required("promote")
    if graph.schema_name == SHARED and dependents is None:
        raise ShadowInvalid(graph.slug, _NOT_RENAMED)
    work = _Promotion(services, graph, schema_map, actor, dependents=dependents, action=action)
    await work.migrate()
    if await work.half_done():
        return await work.finish(resumed=True)
    if await work.done_by(actor.run_id):
        return work.promotion(graph)
    await work.require_shadow()
    try:
        return await _swapped(work, force=force, patience=patience, catch_up=catch_up)
    except _DoneError:
        return await work.finish()


async def cut_off(services: Services, graph: Graph) -> bool:
    """Return whether a promotion has swapped the schemas and not the record: another one finishes it."""
    live = services.target_schema(graph)
    async with live.store.driver() as connection:
        if not (await connection.fetchrow(_sql("scratch"), live.schema))["made"]:
            return False
        state = await connection.fetchrow(_sql("state", schema=quoted(live.schema)))
    return state["vector_prefix"] not in (None, graph.qdrant_prefix)


async def _swapped(
    work: "_Promotion",
    *,
    force: bool,
    patience: float,
    catch_up: Callable[[], Awaitable[object]] | None,
) -> Promotion:
    """Hold the live graph, wait for the shadow, and swap them."""
    despite = await work.left_behind()
    if despite and not force:
        raise work.refused(f"{'; '.join(despite)}. {work.remedy}")
    deadline = time.monotonic() + patience
    async with work.live_held(patience) as connection:
        while True:
            try:
                promoted = await work.attempt(connection, force=force)
                break
            except _NotNowError as not_now:
                if time.monotonic() > deadline:
                    raise work.refused(f"{'; '.join(not_now.reasons)}. {work.later}") from None
            if catch_up is not None:
                await catch_up()
            await asyncio.sleep(_AGAIN)
    paused = time.monotonic() - work.began
    done = work.promotion(promoted) if promoted is not None else await work.finish()
    return done.model_copy(update={"despite": (*despite, *work.behind), "paused_seconds": round(paused, 3)})


class _DoneError(Exception):
    """Another attempt of this run, which is still at work though it counts as dead, has swapped them."""


class _NotNowError(Exception):
    """The schemas cannot be swapped at this moment."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons


class _Promotion:
    """The steps of one promotion."""

    def __init__(
        self,
        services: Services,
        graph: Graph,
        schema_map: SchemaMap,
        actor: Actor | None = None,
        *,
        dependents: Dependents | None = None,
        action: str = _ACTION,
    ) -> None:
        self._services, self._graph, self._actor = services, graph, actor
        self._dependents, self._action = dependents, action
        self._statements = SchemaStatements(schema_map)
        self._write = services.write_schema(graph)
        self._live = services.target_schema(graph)
        self._shadow = services.target_schema(graph, shadow=True)
        self._prefix = graph.qdrant_prefix
        self._shadow_prefix = names.shadow_prefix(graph.qdrant_prefix)
        self._one_database = services.control is self._live.store
        self.began = 0.0
        """When the try that succeeded took its first lock that readers wait for."""
        self.behind: Sequence[str] = ()
        """What the shadow lacked in that try, although it was forced."""

    @property
    def remedy(self) -> str:
        """What mends that something would be left behind."""
        return _MADE.format(shadow=self._shadow.schema) if self._dependents is None else _MENDED

    @property
    def later(self) -> str:
        """What to do about a moment that did not come."""
        return _AGAIN_LATER.format(flag="--force" if self._dependents is None else "--anyway")

    def refused(self, problem: str) -> ShadowInvalid:
        """Return the refusal of this promotion."""
        return ShadowInvalid(self._graph.slug, problem)

    async def migrate(self) -> None:
        """Bring the live schema's bookkeeping tables up to date: the shadow's are made by this release."""
        await migrate_bookkeeping(self._live.store, self._live.schema)

    async def half_done(self) -> bool:
        """Return whether the schemas were swapped but the record was not updated."""
        return await cut_off(self._services, self._graph)

    async def done_by(self, run_id: str | None) -> bool:
        """Return whether an earlier attempt of this run has swapped them."""
        async with self._live.store.driver() as connection:
            query = _sql("promoted", live=quoted(self._live.schema), action=self._action)
            done: bool = await connection.fetchval(query, run_id)
        return done

    async def require_shadow(self) -> None:
        """Raise ShadowInvalid unless the composition's `shadow` provider has a result."""
        graph = self._graph
        entry = parse_composition(graph.slug, graph.composition).entry("sync", shadow=True)
        if entry is None:
            raise ShadowInvalid(graph.slug, "its composition declares no `shadow`")
        async with self._shadow.store.driver() as connection:
            found = await connection.fetchrow(_sql("scratch"), self._shadow.schema)
            state = None
            if found["made"]:
                await migrate_bookkeeping(self._shadow.store, self._shadow.schema)
                state = await connection.fetchrow(_sql("state", schema=quoted(self._shadow.schema)))
        await live_generation(self._live, graph.slug)
        if state is None or state["vector_prefix"] != self._shadow_prefix:
            raise ShadowInvalid(graph.slug, "it has not run yet, so there is nothing to promote")
        if state["shadow_provider"] != entry.provider:
            raise ShadowInvalid(
                graph.slug,
                f"its schema has the result of provider '{state['shadow_provider']}', and `shadow` names "
                f"'{entry.provider}'",
            )

    async def left_behind(self) -> list[str]:
        """Return what is in the live schema, or bound to it, and would not be in the other one."""
        if self._dependents is not None:
            return [*await self._dependents.obstacles(), *await self._of_others()]
        async with self._live.store.driver() as connection:
            rows = await connection.fetch(_sql("left_behind"), self._live.schema, self._shadow.schema)
        return [*(row["reason"] for row in rows), *await self._of_others()]

    async def _of_others(self) -> Sequence[str]:
        return await rows_of_others(self._live, self._shadow, self._statements.schema_map)

    @asynccontextmanager
    async def live_held(self, patience: float) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that holds the live graph: its cycles end at once, as running.

        Raises ShadowInvalid if a cycle held it all the time, or another promotion came first.
        """
        async with self._live.store.begin() as connection:
            driver = await _driver(connection)
            # Queued behind the cycle that holds it, and before those that come.
            await driver.execute(f"SET LOCAL lock_timeout = {max(1, round(patience * 1000))}")
            try:
                await driver.fetchval(_sql("lock"), self._live.schema)
            except asyncpg.LockNotAvailableError:
                raise self.refused(f"{_RUNNING}. {self.later}") from None
            await driver.execute("SET LOCAL lock_timeout = 0")
            state = await driver.fetchrow(_sql("state", schema=quoted(self._live.schema)))
            if state["vector_prefix"] not in (None, self._prefix):
                if await self.done_by(None if self._actor is None else self._actor.run_id):
                    raise _DoneError
                raise self.refused("it was promoted by another run meanwhile")
            await live_generation(self._live, self._graph.slug)
            yield connection

    async def attempt(self, connection: AsyncConnection, *, force: bool) -> Graph | None:
        """Swap, if the shadow can be held and lacks nothing; return the record if it was swapped too.

        Raises _NotNowError otherwise, and the shadow is not held any more.
        """
        driver = await _driver(connection)
        # A savepoint: what is rolled back to it releases the locks that were taken since.
        async with driver.transaction():
            if not await driver.fetchval(_sql("try_lock"), self._shadow.schema):
                raise _NotNowError(_RUNNING)
            self.behind = await self.lacks(connection)
            if self.behind and not force:
                raise _NotNowError(*self.behind)
            return await self.swap(connection)

    async def lacks(self, connection: AsyncConnection) -> list[str]:
        """Return what the shadow lacks of the live graph."""
        driver = await _driver(connection)
        try:
            live, shadow = await progress_of_both(
                driver, self._live, self._shadow, self._write, self._statements
            )
        except StoreRejected as error:
            return [unknown_lag(error)]
        return list(lags(shadow, live)) or await self._not_granted(driver, live, shadow)

    async def _not_granted(self, driver: asyncpg.Connection, live: Progress, shadow: Progress) -> list[str]:
        """Return what the shadow may lack of what writers wait for, who were told that it is visible.

        A shadow that has read all that the write-db shows now has it. The shadow's schema is on the path.
        """
        told = live.ledger.visible
        if told is None or not told.sources:
            return []
        behind = shadow.tables or shadow.pending.held or shadow.ledger.comparisons or shadow.ledger.requeued
        if not behind:
            for source in told.sources:
                wanted = shadow.ledger.wanted
                await advance(driver, source=source, below=told.below, wanted=wanted, beyond=True)
        places = {"live": quoted(self._live.schema), "shadow": quoted(self._shadow.schema)}
        if await driver.fetchval(_sql("granted", **places)):
            return []
        # Under constant writes its cycles never see that nothing is newer: unless somebody waits for it, they
        # do not ask for what is. A sequence has no transaction, so this stays though the try is rolled back.
        await driver.execute(_sql("want", shadow=string_literal(f"{places['shadow']}.sync_wanted")))
        return ["it may lack changes of which writers were told that they are visible"]

    async def swap(self, connection: AsyncConnection) -> Graph | None:
        """Swap the schemas, and the record if it is in the same database: then return it."""
        driver, actor = await _driver(connection), self._actor or Actor()
        live = self._live.schema
        for statement in acting_as(self._live.store):
            await driver.execute(statement)
        before = self.promotion(self._graph, swap=True).shadow_provider_id
        swap = SchemaSwap(self._live, self._shadow, self._dependents)
        try:
            self.began = await swap.run(
                driver, live_prefix=self._shadow_prefix, shadow_prefix=self._prefix, shadow_provider=before
            )
        except LocksHeldError as held:
            raise _NotNowError(str(held)) from None
        except NotCarriedError as error:
            raise self.refused(str(error)) from error
        audit = _sql("audit", live=quoted(live))
        why = f"{actor.why} (provider {before} before)"
        await driver.execute(audit, actor.who, self._action, why, actor.run_id)
        sizes = {row["name"]: row["rows"] for row in await driver.fetch(_sql("sizes"), live)}
        changed = {name: TableProgress(table=name, rows=rows) for name, rows in sizes.items()}
        for payload in payloads(self._graph.ref, actor.run_id or "", changed, failures=0):
            await driver.execute("SELECT pg_notify($1, $2)", names.NOTIFY_CHANNEL, payload)
        if self._live.store.owner_role is not None:
            await driver.execute("SET LOCAL ROLE NONE")
        if not self._one_database:
            return None
        return await self._services.graphs.swap_shadow(
            self._graph, within=connection, actor=self._actor, action=self._action
        )

    async def finish(self, *, resumed: bool = False) -> Promotion:
        """Update the record; return the result."""
        graph = await self._services.graphs.swap_shadow(self._graph, actor=self._actor, action=self._action)
        return self.promotion(graph).model_copy(update={"resumed": resumed})

    def promotion(self, graph: Graph, *, swap: bool = False) -> Promotion:
        """Return the record's state after the promotion; `swap`: it was read before."""
        raw = swapped(graph.composition) if swap else graph.composition
        composition = parse_composition(graph.slug, raw)
        serving = {"sync": composition.sync, "shadow": composition.shadow}
        named = {key: names.FALLBACK_PROVIDER if e is None else e.provider for key, e in serving.items()}
        return Promotion(
            graph=graph.slug,
            provider_id=named["sync"],
            shadow_provider_id=named["shadow"],
            qdrant_prefix=graph.qdrant_prefix,
        )


async def _driver(connection: AsyncConnection) -> asyncpg.Connection:
    """Return the driver's connection, within this connection's transaction."""
    await connection.execute(text("SELECT 1"))  # the adapter begins lazily
    raw = await connection.get_raw_connection()
    if raw.driver_connection is None:
        raise RuntimeError("the connection of a promotion is closed")
    return raw.driver_connection
