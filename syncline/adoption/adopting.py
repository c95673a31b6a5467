"""Adopting existing write-db tables for capture, online, and undoing it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from syncline.adoption.capture import sql
from syncline.adoption.catalog import read_catalog
from syncline.adoption.checks import check_source
from syncline.adoption.locks import PATIENT, Patience, alone_in, take_step
from syncline.adoption.naming import qualified
from syncline.adoption.needs import source_keys, types_of
from syncline.adoption.plan import adoption_steps
from syncline.adoption.steps import AdoptionPlan, Step
from syncline.adoption.undo import undo_steps
from syncline.adoption.waits import OnWait, waits_told
from syncline.engine.tablemap import SchemaMap
from syncline.errors import SchemaMismatch
from syncline.masking import error_text
from syncline.sqltext import quoted
from syncline.stores.postgres import PostgresStore

__all__ = ["adopt", "plan_adoption", "plan_undo", "undo"]

_Plan = Callable[[asyncpg.Connection, str, SchemaMap], Awaitable[AdoptionPlan]]
_OnStep = Callable[[Step], object]


async def plan_adoption(connection: asyncpg.Connection, schema: str, schema_map: SchemaMap) -> AdoptionPlan:
    """Return what the source tables in `schema` lack to be captured; nothing is changed.

    Raise SchemaMismatch, with everything that is wrong, if they do not fit the map.
    """
    catalog = await read_catalog(connection, schema, types=types_of(schema_map))
    problems = check_source(catalog, schema_map) or await _refused_conditions(connection, schema, schema_map)
    if problems:
        raise SchemaMismatch(*problems, heading=f"Schema '{schema}' does not fit map '{schema_map.name}'")
    return AdoptionPlan(schema=schema, steps=tuple(adoption_steps(catalog, source_keys(schema_map))))


async def plan_undo(connection: asyncpg.Connection, schema: str, schema_map: SchemaMap) -> AdoptionPlan:
    """Return the way back to tables that are not captured; nothing is changed."""
    catalog = await read_catalog(connection, schema)
    unshared = [row["name"] for row in await connection.fetch(sql("unshared"), schema)]
    return AdoptionPlan(
        schema=schema, steps=tuple(undo_steps(catalog, source_keys(schema_map), unshared=unshared))
    )


async def adopt(
    store: PostgresStore,
    schema: str,
    schema_map: SchemaMap,
    *,
    patience: Patience = PATIENT,
    on_step: _OnStep = lambda _: None,
    on_wait: OnWait = lambda _: None,
) -> list[Step]:
    """Prepare the map's source tables for capture while they are written to; return the steps that it took.

    None when nothing was to do. What an interrupted adoption left undone, the next one does. Raise
    SchemaMismatch before anything is changed, or AdoptionBlocked when a table was never free for its step.
    """
    return await _carry_out(store, schema, schema_map, plan_adoption, patience, on_step, on_wait)


async def undo(
    store: PostgresStore,
    schema: str,
    schema_map: SchemaMap,
    *,
    patience: Patience = PATIENT,
    on_step: _OnStep = lambda _: None,
    on_wait: OnWait = lambda _: None,
) -> list[Step]:
    """Take away everything that adoption added, and nothing else; return the steps that it took.

    Stop the graph's cycles first: they need what goes. Adopting again makes the next cycle read every row.
    """
    return await _carry_out(store, schema, schema_map, plan_undo, patience, on_step, on_wait)


async def _carry_out(
    store: PostgresStore,
    schema: str,
    schema_map: SchemaMap,
    make: _Plan,
    patience: Patience,
    on_step: _OnStep,
    on_wait: OnWait,
) -> list[Step]:
    async with store.driver() as connection, _acting(connection, store.owner_role):
        # Usually nothing is to do, and nobody needs to be kept out for that.
        if not (await make(connection, schema, schema_map)).steps:
            return []
        async with alone_in(connection, schema):
            plan = await make(connection, schema, schema_map)
            for step in plan.steps:
                async with waits_told(store, connection, step, on_wait):
                    await take_step(connection, step, patience)
                on_step(step)
            return list(plan.steps)


@asynccontextmanager
async def _acting(connection: asyncpg.Connection, owner: str | None) -> AsyncIterator[None]:
    """Act as the role that owns the schemas of graphs, if that is another; a failure ends the connection."""
    if owner is not None:
        await connection.execute(f"SET ROLE {quoted(owner)}")
    yield
    if owner is not None:
        await connection.execute("RESET ROLE")


async def _refused_conditions(
    connection: asyncpg.Connection, schema: str, schema_map: SchemaMap
) -> list[str]:
    """Return a sentence for each `present` that Postgres cannot read: only it knows what SQL refers to."""
    problems: list[str] = []
    for table in (table for table in schema_map if table.present != "true"):
        try:
            async with connection.transaction(readonly=True):
                await connection.execute("SELECT set_config('search_path', quote_ident($1), true)", schema)
                query = sql("condition", condition=table.present, table=qualified(schema, table.source))
                await connection.prepare(query)
        except asyncpg.SyntaxOrAccessError as error:
            problems.append(f"{table.name}: its condition `{table.present}` is refused: {error_text(error)}.")
    return problems
