"""Plans: the steps between a schema as it is and a schema that is captured."""

from collections.abc import Iterator, Mapping, Sequence

from syncline.adoption.capture import (
    function_definition,
    put,
    serves_capture,
    sql,
    tombstone_body,
    tombstone_function,
    triggers_of,
    truncate_trigger,
)
from syncline.adoption.catalog import Catalog, TableState
from syncline.adoption.naming import (
    SYNC_COLUMN,
    TOMBSTONES,
    VERSION_FUNCTION,
    index_name,
    qualified,
)
from syncline.adoption.notification import notification_steps, notify_statements, shared_steps
from syncline.adoption.steps import Step
from syncline.sqltext import quoted

__all__ = ["adoption_steps", "misses_changes"]

_STAMP = "pg_current_xact_id()"


def adoption_steps(catalog: Catalog, keys: Mapping[str, Sequence[str]]) -> Iterator[Step]:
    """Yield what the source tables, given with their keys, lack. They have passed `check_source`."""
    body = sql("version_body").strip()
    version = catalog.functions.get(VERSION_FUNCTION)
    if version is None or version.body.strip() != body:
        yield Step(
            sentence="Create the function that stamps rows, syncline.capture_version().",
            statements=(sql("shared", body=f"\n{body}\n"),),
            shared=True,
        )
    if TOMBSTONES not in catalog.tables:
        tombstones = qualified(catalog.schema, TOMBSTONES)
        yield Step(
            sentence=f"Create table {catalog.schema}.{TOMBSTONES} for the keys of deleted rows.",
            statements=(sql("tombstones", tombstones=tombstones),),
        )
    yield from shared_steps(catalog)
    yield from notification_steps(catalog)
    for source, key in keys.items():
        table = catalog.tables[source]
        yield from _capture_steps(catalog, table, key)
        yield from _index_steps(catalog, table, key)


def misses_changes(catalog: Catalog, table: TableState, key: Sequence[str]) -> bool:
    """Whether changes of a source table can escape capture. The TRUNCATE of a single new partition may."""
    return (
        SYNC_COLUMN not in table.columns
        or catalog.functions.get(tombstone_function(table)) != tombstone_body(table, key)
        or not all(trigger.is_on(table) for trigger in triggers_of(table, key))
    )


def _capture_steps(catalog: Catalog, table: TableState, key: Sequence[str]) -> Iterator[Step]:
    """Yield at most one step: no write may slip in between a column and its triggers."""
    name = qualified(table.schema, table.name)
    column = table.columns.get(SYNC_COLUMN)
    triggers = triggers_of(table, key)
    same = catalog.functions.get(tombstone_function(table)) == tombstone_body(table, key)
    body = tombstone_body(table, key)
    function = [] if same else [function_definition(tombstone_function(table), body)]
    # Another key is in the condition of a trigger too, and conditions cannot be compared.
    triggers = [each for each in triggers if not each.is_on(table) or (each.conditional and not same)]
    leaves = [leaf for leaf in table.leaves if not truncate_trigger(table).is_on(leaf)]
    statements = [
        *([sql("column", table=name)] if column is None else []),
        *([sql("default", table=name)] if column is None or column.default != _STAMP else []),
        *function,
        *(statement for trigger in triggers for statement in put(trigger, table)),
        *(statement for leaf in leaves for statement in put(truncate_trigger(table), leaf)),
    ]
    notifying = notify_statements(table, catalog.schema)
    if not statements:
        # Nothing was missed for want of it: another epoch, as below, would be a rescan for nothing.
        if notifying:
            yield _notify_step(table, notifying)
        return
    statements += notifying
    locked = [name]
    if triggers and (column is not None or TOMBSTONES in catalog.tables):
        # Changes may have been missed. Another sync_tombstone is another epoch: every row is read again.
        tombstones = qualified(catalog.schema, TOMBSTONES)
        before = qualified(catalog.schema, f"{TOMBSTONES}_before")
        create = sql("tombstones", tombstones=tombstones).rstrip()
        statements.append(sql("epoch", tombstones=tombstones, before=before, create=create))
        locked.append(tombstones)
    yield Step(
        sentence=f"Capture every change of table {table.schema}.{table.name}: "
        "column sync_xid, triggers for versions, for deletes and for notifications.",
        lock=f"LOCK TABLE {', '.join(locked)} IN ACCESS EXCLUSIVE MODE",
        statements=tuple(statements),
        locked=tuple(locked),
    )


def _notify_step(table: TableState, statements: Sequence[str]) -> Step:
    tables = [qualified(each.schema, each.name) for each in (table, *table.leaves)]
    return Step(
        sentence=f"Tell the worker of changes of table {table.schema}.{table.name}: a trigger per statement.",
        lock=f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE",
        statements=tuple(statements),
        locked=tuple(tables),
    )


def _index_steps(catalog: Catalog, table: TableState, key: Sequence[str]) -> Iterator[Step]:
    for leaf in table.leaves or (table,):
        if any(serves_capture(index, key) and index.valid for index in leaf.indexes):
            continue
        yield _build(catalog, leaf, key, concurrently=True)
    if table.partitioned and not any(serves_capture(index, key) and index.valid for index in table.indexes):
        # Postgres refuses CONCURRENTLY here; it finds the partitions' indexes and builds none.
        yield _build(catalog, table, key, concurrently=False)


def _build(catalog: Catalog, table: TableState, key: Sequence[str], *, concurrently: bool) -> Step:
    leftovers = [index.name for index in table.indexes if serves_capture(index, key) and not index.valid]
    taken = {name for schema, name in catalog.names if schema == table.schema} - set(leftovers)
    name = index_name(table.name, frozenset(taken))
    how = "CONCURRENTLY " if concurrently else ""
    drops = [f"DROP INDEX {how}IF EXISTS {qualified(table.schema, left)}" for left in leftovers]
    relation = qualified(table.schema, table.name)
    # It reads a sample, and nobody waits for it. First, so that what is interrupted is done again as a whole.
    counted = [sql("analyze", table=relation, key=", ".join(map(quoted, key)))] if concurrently else []
    create = sql(
        "index",
        how=how,
        name=quoted(name),
        table=relation,
        key=", ".join(f'{quoted(column)} COLLATE "C"' for column in key),
    )
    again = " again, because its build was interrupted" if leftovers else ""
    return Step(
        sentence=f"Build index {name} on {table.schema}.{table.name}{again}.",
        statements=(*drops, *counted, create),
        locked=() if concurrently else (relation,),
        alone=concurrently,
    )
