"""Promotion: a shadow's result becomes the graph's live result, and the live one becomes the shadow.

The schemas in the graph-db are swapped by renaming; in the record, the providers are swapped and so are the
prefixes of the collections, which cannot be renamed. If the record is in the same database, all of this is
one transaction. If not, the schemas are swapped first. If it is interrupted between the two, no cycle does
harm: each schema stores its prefix, and a cycle that was given another one stops (SchemaMoved). The next
promotion, usually the next attempt, first updates the record.
"""

import asyncio
import time
from collections.abc import AsyncIterator
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
from syncline.engine.render.identity import Identity
from syncline.engine.render.links import LinkTable
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.engine.state import payloads
from syncline.engine.table_map import SchemaMap
from syncline.engine.visible import advance
from syncline.errors import ShadowInvalid, StoreRejected
from syncline.messages.operator import Promotion
from syncline.messages.sync import TableProgress
from syncline.migrations import migrate_bookkeeping
from syncline.provider import GraphSchema
from syncline.shadow.lag import Progress, lags, progress_of
from syncline.shadow.prepare import live_generation
from syncline.sql import quoted, statements_of, string_literal

__all__ = ["promote"]

_sql = statements_of("syncline.shadow")

_ACTION: Final = "promote"
_PATIENCE: Final = 60.0
_AGAIN: Final = 0.5
_MADE: Final = (
    "Make in schema '{shadow}' what it lacks (CREATE TABLE … (LIKE … INCLUDING ALL), with its rows), or move "
    "what is no part of the graph, and what is bound to it, to a schema of its own; `--force` swaps them "
    "without it"
)
_OTHERS: Final = "public"
_NOT_RENAMED: Final = (
    "its schema is public, and a promotion renames the schema with all that others and extensions have "
    "there; give the graph itself the shadow's provider or map by `syncline graph set --composition`: its "
    "next cycle writes what differs"
)
_FORCE: Final = "Try again later; `--force` swaps them anyway, once neither is running"


async def promote(
    services: Services,
    graph: Graph,
    schema_map: SchemaMap,
    *,
    force: bool = False,
    who: str,
    why: str,
    run_id: str,
    starter: str | None = None,
    patience: float = _PATIENCE,
) -> Promotion:
    """Swap a graph and its shadow, once per run; return the result.

    Waits for a moment when neither is running and the shadow has all that the live graph has. Raises
    ShadowInvalid if there is no shadow, or no such moment in time, or the live schema contains something
    else; with `force` it is enough that neither is running.
    """
    actor = Actor(who=who, why=why, starter=starter, run_id=run_id).required("promote")
    if graph.schema_name == _OTHERS:
        raise ShadowInvalid(graph.slug, _NOT_RENAMED)
    work = _Promotion(services, graph, schema_map, actor)
    if await work.half_done():
        return await work.finish(resumed=True)
    if await work.done_by(run_id):
        return work.promotion(graph)
    await work.require_shadow()
    despite = await work.left_behind()
    if despite and not force:
        made = _MADE.format(shadow=services.target_schema(graph, shadow=True).schema)
        raise ShadowInvalid(graph.slug, f"{'; '.join(despite)}. {made}")
    reasons: list[str] = []
    deadline = time.monotonic() + patience
    while True:
        async with work.both_held() as connection:
            if connection is None:
                reasons = ["a cycle was running all the time"]
            else:
                reasons = await work.lacks(connection)
                if force or not reasons:
                    despite += reasons
                    promoted = await work.swap(connection, who=who, why=why, run_id=run_id)
                    break
        if time.monotonic() > deadline:
            raise ShadowInvalid(graph.slug, f"{'; '.join(reasons)}. {_FORCE}")
        await asyncio.sleep(_AGAIN)
    done = work.promotion(promoted) if promoted is not None else await work.finish()
    return done.model_copy(update={"despite": tuple(despite)})


class _Promotion:
    """The steps of one promotion."""

    def __init__(
        self, services: Services, graph: Graph, schema_map: SchemaMap, actor: Actor | None = None
    ) -> None:
        self._services, self._graph, self._actor = services, graph, actor
        self._statements = SchemaStatements(schema_map)
        self._write = services.write_schema(graph)
        self._live = services.target_schema(graph)
        self._shadow = services.target_schema(graph, shadow=True)
        self._prefix = graph.qdrant_prefix
        self._shadow_prefix = names.shadow_prefix(graph.qdrant_prefix)
        self._one_database = services.control is self._live.store

    async def half_done(self) -> bool:
        """Return whether the schemas were swapped but the record was not updated."""
        await migrate_bookkeeping(self._live.store, self._live.schema)
        async with self._live.store.driver() as connection:
            state = await connection.fetchrow(_sql("state", schema=quoted(self._live.schema)))
        return state["vector_prefix"] not in (None, self._prefix)

    async def done_by(self, run_id: str) -> bool:
        """Return whether an earlier attempt of this run has swapped them."""
        async with self._live.store.driver() as connection:
            query = _sql("promoted", live=quoted(self._live.schema), action=_ACTION)
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
        """Return objects in the live schema, or bound to it, that would not be moved."""
        async with self._live.store.driver() as connection:
            rows = await connection.fetch(_sql("left_behind"), self._live.schema, self._shadow.schema)
            return (
                [row["reason"] for row in rows]
                + [
                    f"the shadow has none of the links that others made in '{name}'"
                    async for name in self._links_of_others(connection)
                ]
                + [
                    f"the shadow has none of the rows that others have in '{name}'"
                    async for name in self._rows_of_others(connection)
                ]
                + [
                    f"the shadow has not all of the rows that are marked in '{name}'"
                    async for name in self._marked_rows(connection)
                ]
            )

    async def _links_of_others(self, connection: asyncpg.Connection) -> AsyncIterator[str]:
        """Yield the link tables of the live schema with links of others, which a promotion moves away."""
        schema_map = self._statements.schema_map
        for table in schema_map:
            for links in table.links:
                full = LinkTable(schema_map, table, links)
                if full.ours and await self._finds(
                    connection, links.table, full.of_others(self._live.schema)
                ):
                    yield links.table

    async def _rows_of_others(self, connection: asyncpg.Connection) -> AsyncIterator[str]:
        """Yield the tables of the live schema with rows of others, which a promotion moves away."""
        schema_map = self._statements.schema_map
        for table in schema_map:
            if not table.listed:
                continue
            is_ours = Identity(schema_map, table, schema=self._live.schema).is_ours("t")
            query = _sql("rows_of_others", live=self._place(table.name), is_ours=is_ours)
            if await self._finds(connection, table.name, query):
                yield table.name

    async def _marked_rows(self, connection: asyncpg.Connection) -> AsyncIterator[str]:
        """Yield the tables of the live schema with marked rows that the shadow, which came later, has not."""
        places = {"live": quoted(self._live.schema), "shadow": quoted(self._shadow.schema)}
        for table in self._statements.schema_map:
            if table.marked and await connection.fetchval(_sql("marked_only_here", **places), table.name):
                yield table.name

    async def _finds(self, connection: asyncpg.Connection, name: str, query: str) -> bool:
        """Return whether the live schema has this table, and the query finds something in it."""
        there = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", self._place(name))
        return bool(there and await connection.fetchval(query))

    def _place(self, name: str) -> str:
        return f"{quoted(self._live.schema)}.{quoted(name)}"

    @asynccontextmanager
    async def both_held(self) -> AsyncIterator[AsyncConnection | None]:
        """Yield a connection in a transaction that locks both schemas; None if a cycle holds one of them.

        Raises ShadowInvalid if another promotion came first.
        """
        async with self._live.store.begin() as connection:
            driver = await _driver(connection)
            schemas = self._live.schema, self._shadow.schema
            held = await driver.fetchval(_sql("try_lock"), *schemas)
            if held:
                state = await driver.fetchrow(_sql("state", schema=quoted(self._live.schema)))
                await live_generation(self._live, self._graph.slug)
                if state["vector_prefix"] not in (None, self._prefix):
                    raise ShadowInvalid(self._graph.slug, "it was promoted by another run meanwhile")
            yield connection if held else None

    async def lacks(self, connection: AsyncConnection) -> list[str]:
        """Return what the shadow lacks of the live graph."""
        driver = await _driver(connection)
        try:
            live = await self._progress(driver, self._live)
            shadow = await self._progress(driver, self._shadow)
        except StoreRejected as error:
            return [f"whether it is behind is unknown: {error}"]
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
        return ["it may lack changes of which writers were told that they are visible"]

    async def _progress(self, driver: asyncpg.Connection, place: GraphSchema) -> Progress:
        await driver.execute(SCHEMA_PATH, place.schema)
        return await progress_of(driver, place, self._write, self._statements)

    async def swap(self, connection: AsyncConnection, *, who: str, why: str, run_id: str) -> Graph | None:
        """Swap the schemas, and the record if it is in the same database: then return it."""
        driver = await _driver(connection)
        live, shadow = self._live.schema, self._shadow.schema
        if self._live.store.owner_role is not None:
            await driver.execute(f"SET LOCAL ROLE {quoted(self._live.store.owner_role)}")
        grants = await driver.fetch(_sql("grants"), live, shadow)
        for grant in grants:
            await driver.execute(grant["statement"])
        before = self.promotion(self._graph, swap=True).shadow_provider_id
        await driver.execute(
            _sql(
                "swap",
                live=quoted(live),
                shadow=quoted(shadow),
                live_prefix=string_literal(self._shadow_prefix),
                shadow_prefix=string_literal(self._prefix),
                shadow_provider=string_literal(before),
            )
        )
        audit = _sql("audit", live=quoted(live))
        await driver.execute(audit, who, _ACTION, f"{why} (provider {before} before)", run_id)
        sizes = {row["name"]: row["rows"] for row in await driver.fetch(_sql("sizes"), live)}
        changed = {name: TableProgress(table=name, rows=rows) for name, rows in sizes.items()}
        for payload in payloads(self._graph.ref, run_id, changed, failures=0):
            await driver.execute("SELECT pg_notify($1, $2)", names.NOTIFY_CHANNEL, payload)
        if self._live.store.owner_role is not None:
            await driver.execute("SET LOCAL ROLE NONE")
        if not self._one_database:
            return None
        return await self._services.graphs.swap_shadow(self._graph, within=connection, actor=self._actor)

    async def finish(self, *, resumed: bool = False) -> Promotion:
        """Update the record; return the result."""
        graph = await self._services.graphs.swap_shadow(self._graph, actor=self._actor)
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
