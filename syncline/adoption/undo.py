"""Undoing adoption: the steps back to the schema as it was. Rows and tables stay."""

from collections.abc import Collection, Iterator

from syncline.adoption.capture import is_ours
from syncline.adoption.catalog import Catalog, TableState
from syncline.adoption.naming import (
    LISTENER,
    POSITIONS,
    SHARED_SCHEMA,
    STATE,
    SYNC_COLUMN,
    TOMBSTONES,
    VERSION_FUNCTION,
    qualified,
)
from syncline.adoption.steps import Step
from syncline.sqltext import quoted

__all__ = ["undo_steps"]


def undo_steps(catalog: Catalog, sources: Collection[str], *, unshared: Collection[str]) -> Iterator[Step]:
    """Yield what takes capture away from the sources, and from what else has it: tables that left the map.

    `unshared` names what nobody else uses of schema `syncline`: its function, and the schema itself.
    """
    captured = [table for table in catalog.tables.values() if _is_captured(catalog, table, sources)]
    for table in captured:
        yield from _index_steps(table)
    for table in captured:
        yield _capture_step(catalog, table)
    functions = sorted(f for f in catalog.functions if f != VERSION_FUNCTION and is_ours(f, catalog.schema))
    if functions:
        yield Step(
            sentence=f"Drop the functions of {catalog.schema} that kept deleted keys and told of changes.",
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
    function_stays = VERSION_FUNCTION in catalog.functions and VERSION_FUNCTION[1] not in unshared
    listener_stays = catalog.listener and LISTENER[1] not in unshared
    if VERSION_FUNCTION[1] in unshared:
        yield Step(
            sentence="Drop function syncline.capture_version(), which nothing uses any more.",
            statements=(f"DROP FUNCTION {qualified(*VERSION_FUNCTION)}()",),
            shared=True,
        )
    if SHARED_SCHEMA in unshared and not function_stays and not listener_stays:
        yield Step(
            sentence="Drop schema syncline, which is empty.",
            statements=(f"DROP SCHEMA {quoted(SHARED_SCHEMA)}",),
            shared=True,
        )


def _is_captured(catalog: Catalog, table: TableState, sources: Collection[str]) -> bool:
    ours = any(is_ours(trigger.function, catalog.schema) for trigger in table.triggers.values())
    column = table.name in sources and SYNC_COLUMN in table.columns
    # A partition is its table's affair.
    return table.kind != "partition" and (ours or column)


def _index_steps(table: TableState) -> Iterator[Step]:
    # Those of a partitioned table cannot go CONCURRENTLY; they go with the column.
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
