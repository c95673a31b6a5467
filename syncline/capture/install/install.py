"""Adoption and undo: installs capture on existing write-db tables, online, and removes it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager

import asyncpg

from syncline.capture.install.catalog import Catalog, TableState, read_catalog
from syncline.capture.install.checks import check_source, source_keys, source_tenants, types_of
from syncline.capture.install.locks import PATIENT, OnWait, Patience, alone_in, report_lock_waits, take_step
from syncline.capture.install.misfit import Misfit
from syncline.capture.install.ownership import ownership_problems
from syncline.capture.install.plan import adoption_steps
from syncline.capture.install.steps import (
    LISTENER,
    POSITIONS,
    SHARED_SCHEMA,
    SHARED_VERSION_FUNCTION,
    STATE,
    SYNC_COLUMN,
    TOKEN,
    TOMBSTONES,
    AdoptionPlan,
    Step,
    qualified,
)
from syncline.capture.install.triggers import is_ours, sql
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.errors import SchemaMismatch
from syncline.masking import error_text
from syncline.sql import quoted
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["adopt", "plan_adoption", "plan_undo", "refused_conditions", "undo", "undo_steps"]


def undo_steps(catalog: Catalog, sources: Collection[str], *, unshared: Collection[str]) -> Iterator[Step]:
    """Yield the steps that remove capture from the sources, and from tables that left the map.

    `unshared` names what no other graph uses of schema `syncline`: its function, and the schema itself.
    """
    captured = [table for table in catalog.tables.values() if _is_captured(catalog, table, sources)]
    for table in captured:
        yield from _index_steps(table)
    for table in captured:
        yield _capture_step(catalog, table)
    functions = sorted(
        f for f in catalog.functions if f != SHARED_VERSION_FUNCTION and is_ours(f, catalog.schema)
    )
    if functions:
        yield Step(
            sentence=f"Drop the functions of {catalog.schema} that stamped rows, kept keys and notified.",
            statements=tuple(f"DROP FUNCTION {qualified(*function)}()" for function in functions),
        )
    for ours in (STATE, TOMBSTONES, POSITIONS):
        if ours in catalog.tables:
            name = qualified(catalog.schema, ours)
            yield Step(
                sentence=f"Drop table {catalog.schema}.{ours}.",
                statements=(f"DROP TABLE {name}",),
                locked=(name,),
            )
    if LISTENER[1] in unshared:
        yield Step(
            sentence=f"Drop table {'.'.join(LISTENER)}, which nothing reads any more.",
            statements=(f"DROP TABLE {qualified(*LISTENER)}",),
            shared=True,
        )
    if TOKEN[1] in unshared:
        yield Step(
            sentence=f"Drop function {'.'.join(TOKEN)}(), by which writers named their transactions.",
            statements=(f"DROP FUNCTION {qualified(*TOKEN)}()",),
            shared=True,
        )
    token_stays = catalog.token is not None and TOKEN[1] not in unshared
    function_stays = (
        SHARED_VERSION_FUNCTION in catalog.functions and SHARED_VERSION_FUNCTION[1] not in unshared
    )
    listener_stays = catalog.listener is not None and LISTENER[1] not in unshared
    if SHARED_VERSION_FUNCTION[1] in unshared:
        yield Step(
            sentence="Drop function syncline.capture_version(), which nothing uses any more.",
            statements=(f"DROP FUNCTION {qualified(*SHARED_VERSION_FUNCTION)}()",),
            shared=True,
        )
    if SHARED_SCHEMA in unshared and not (function_stays or listener_stays or token_stays):
        yield Step(
            sentence="Drop schema syncline, which is empty.",
            statements=(f"DROP SCHEMA {quoted(SHARED_SCHEMA)}",),
            shared=True,
        )


def _is_captured(catalog: Catalog, table: TableState, sources: Collection[str]) -> bool:
    ours = any(is_ours(trigger.function, catalog.schema) for trigger in table.triggers.values())
    column = table.name in sources and SYNC_COLUMN in table.columns
    # A partition is handled with its table.
    return table.kind != "partition" and (ours or column)


def _index_steps(table: TableState) -> Iterator[Step]:
    # Indexes of a partitioned table cannot be dropped CONCURRENTLY; they are dropped with the column.
    indexes = [] if table.partitioned else [i for i in table.indexes if (SYNC_COLUMN, None) in i.keys]
    for index in indexes:
        yield Step(
            sentence=f"Drop index {index.name} of {table.schema}.{table.name}.",
            statements=(f"DROP INDEX CONCURRENTLY IF EXISTS {qualified(table.schema, index.name)}",),
            alone=True,
        )


def _capture_step(catalog: Catalog, table: TableState) -> Step:
    name = qualified(table.schema, table.name)
    drops = [
        f"DROP TRIGGER {quoted(trigger.name)} ON {qualified(each.schema, each.name)}"
        for each in (table, *table.leaves)
        for trigger in each.triggers.values()
        if is_ours(trigger.function, catalog.schema) and (each is table or trigger.of_its_own)
    ]
    if SYNC_COLUMN in table.columns:
        drops.append(f"ALTER TABLE {name} DROP COLUMN {SYNC_COLUMN}")
    return Step(
        sentence=f"Stop capturing table {table.schema}.{table.name}: drop its triggers and column sync_xid.",
        lock=f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE",
        statements=tuple(drops),
        locked=(name,),
    )


_Plan = Callable[[asyncpg.Connection, str, SchemaMap], Awaitable[AdoptionPlan]]
_OnStep = Callable[[Step], object]


async def plan_adoption(connection: asyncpg.Connection, schema: str, schema_map: SchemaMap) -> AdoptionPlan:
    """Return the steps by which the source tables in `schema` are captured; changes nothing.

    Raises SchemaMismatch, listing every problem, if the tables do not match the map.
    """
    catalog = await read_catalog(connection, schema, types=types_of(schema_map))
    problems = (
        check_source(catalog, schema_map)
        or ownership_problems(catalog, source_keys(schema_map))
        or await refused_conditions(connection, schema, schema_map)
    )
    if problems:
        raise SchemaMismatch(*problems, heading=f"Schema '{schema}' does not fit map '{schema_map.name}'")
    steps = adoption_steps(catalog, source_keys(schema_map), source_tenants(schema_map))
    return AdoptionPlan(schema=schema, steps=tuple(steps))


async def plan_undo(connection: asyncpg.Connection, schema: str, schema_map: SchemaMap) -> AdoptionPlan:
    """Return the steps that remove capture from the tables; changes nothing."""
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
    """Install capture on the map's source tables while writers use them; return the steps taken.

    Empty if nothing was missing. It continues an interrupted adoption. Raises SchemaMismatch before anything
    is changed, or AdoptionBlocked when a table's locks could not be acquired for a step.
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
    """Remove everything that adoption added, and nothing else; return the steps taken.

    Stop the graph's cycles first: they need these objects. After another adoption the next cycle reads every
    row.
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
        # Usually nothing is missing, and then no lock is needed.
        if not (await make(connection, schema, schema_map)).steps:
            return []
        async with alone_in(connection, schema):
            plan = await make(connection, schema, schema_map)
            for step in plan.steps:
                async with report_lock_waits(store, connection, step, on_wait):
                    await take_step(connection, step, patience)
                on_step(step)
            return list(plan.steps)


@asynccontextmanager
async def _acting(connection: asyncpg.Connection, owner: str | None) -> AsyncIterator[None]:
    """Act as the role that owns graph schemas, if configured; a failure closes the connection."""
    if owner is not None:
        await connection.execute(f"SET ROLE {quoted(owner)}")
    yield
    if owner is not None:
        await connection.execute("RESET ROLE")


async def refused_conditions(
    connection: asyncpg.Connection, schema: str, tables: Iterable[TableMap]
) -> list[str]:
    """Return a sentence for each `present` that Postgres rejects: only Postgres can parse its SQL."""
    problems: list[str] = []
    for table in (table for table in tables if table.present != "true"):
        try:
            async with reading(connection):
                query = sql("condition", condition=table.present, table=qualified(schema, table.source))
                await connection.prepare(query)
        except asyncpg.PostgresError as error:
            # Also a constant that is no value of the column's type.
            said = f"{table.name}: its condition `{table.present}` is refused: {error_text(error)}."
            problems.append(Misfit(said, table=table.name, path=("present",)))
    return problems
