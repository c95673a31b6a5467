"""Plans: the steps from a schema's present state to a captured schema."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from syncline.capture.install.catalog import Catalog, FunctionState, TableState
from syncline.capture.install.notification import (
    notification_steps,
    notify_body,
    notify_statements,
    notify_trigger,
    shared_steps,
)
from syncline.capture.install.ownership import capture_owner, handing_over
from syncline.capture.install.steps import (
    NOTIFY_FUNCTION,
    NOTIFY_TRIGGER,
    POSITIONS,
    SYNC_COLUMN,
    TENANT,
    TOMBSTONES,
    VERSION_FUNCTION,
    Step,
    index_name,
    qualified,
)
from syncline.capture.install.triggers import (
    earlier_tombstone_bodies,
    function_definition,
    index_columns,
    put,
    serves_capture,
    sql,
    tombstone_body,
    tombstone_function,
    triggers_of,
    truncate_trigger,
    version_body,
)
from syncline.sql import literal, quoted
from syncline.stores.tenants import write_guard

__all__ = ["adoption_steps", "misses_changes"]

_STAMP = "pg_current_xact_id()"
_PURPOSE = {
    TOMBSTONES: "for the keys of deleted rows",
    POSITIONS: "to detect a restore to an earlier time",
}
_NONE: Mapping[str, str] = {}
_SHARED = (TOMBSTONES, POSITIONS)
_ON_PARTITIONS = ("capture_truncate", NOTIFY_TRIGGER)
"""The triggers that each partition needs itself; row triggers belong to the partitioned table."""


def adoption_steps(
    catalog: Catalog, keys: Mapping[str, Sequence[str]], tenants: Mapping[str, str] = _NONE
) -> Iterator[Step]:
    """Yield the steps that the source tables, given with their keys and columns of tenants, lack.

    They must have passed `check_source` and `ownership_problems`.
    """
    owner = capture_owner(catalog, keys)
    functions = _functions(catalog, keys, tenants)
    yield from handing_over(catalog, owner, functions)
    for step in _owned_steps(catalog, keys, tenants):
        # The adopting role may be the owner itself: then no role change is needed.
        itself = step.shared or catalog.roles[owner].self
        yield step if itself else replace(step, role=owner)


def _functions(
    catalog: Catalog, keys: Mapping[str, Sequence[str]], tenants: Mapping[str, str]
) -> dict[tuple[str, str], FunctionState]:
    """Return all functions that the schema needs, in their current form."""
    tables = [(catalog.tables[source], key, tenants.get(source)) for source, key in keys.items()]
    return {
        (catalog.schema, VERSION_FUNCTION): version_body(),
        (catalog.schema, NOTIFY_FUNCTION): notify_body(catalog),
        **{tombstone_function(table): tombstone_body(table, key, whose) for table, key, whose in tables},
    }


def _owned_steps(
    catalog: Catalog, keys: Mapping[str, Sequence[str]], tenants: Mapping[str, str]
) -> Iterator[Step]:
    version = (catalog.schema, VERSION_FUNCTION)
    if catalog.functions.get(version) != version_body():
        function, body = qualified(*version), version_body().body
        yield Step(
            sentence=f"Create the function that stamps rows, {catalog.schema}.{VERSION_FUNCTION}().",
            statements=(sql("version", function=function, body=body),),
        )
    own = {
        TOMBSTONES: _tombstones(qualified(catalog.schema, TOMBSTONES)),
        POSITIONS: sql("positions", positions=qualified(catalog.schema, POSITIONS)),
    }
    missing = [name for name in own if name not in catalog.tables]
    if missing:
        tables = " and ".join(f"{catalog.schema}.{name} {_PURPOSE[name]}" for name in missing)
        yield Step(
            sentence=f"Create table {tables}.",
            statements=tuple(own[name] for name in missing),
        )
    if tenants and not _knows_tenants(catalog):
        yield _whose_step(catalog)
    if TOMBSTONES in catalog.tables and not catalog.tables[TOMBSTONES].columns["key"].uncompressed:
        yield _storage_step(catalog)
    yield from shared_steps(catalog)
    yield from notification_steps(catalog)
    for source, key in keys.items():
        table = catalog.tables[source]
        tenant = tenants.get(source)
        yield from _capture_steps(catalog, table, key, tenant, whose=bool(tenants) or _knows_tenants(catalog))
        yield from _index_steps(catalog, table, key, tenant)


def _tombstones(tombstones: str) -> str:
    storage = sql("tombstone_storage", tombstones=tombstones)
    return sql("tombstones", tombstones=tombstones, storage=storage).rstrip()


def _storage_step(catalog: Catalog) -> Step:
    tombstones = qualified(catalog.schema, TOMBSTONES)
    return Step(
        sentence=f"Store keys of large deletes in {catalog.schema}.{TOMBSTONES} uncompressed.",
        lock=f"LOCK TABLE {tombstones} IN ACCESS EXCLUSIVE MODE",
        statements=(sql("tombstone_storage", tombstones=tombstones),),
        locked=(tombstones,),
    )


def _knows_tenants(catalog: Catalog) -> bool:
    """Whether deleted keys, and positions, say whose they are."""
    return all(name in catalog.tables and TENANT in catalog.tables[name].columns for name in _SHARED)


def _whose(schema: str, tombstones: str) -> str:
    return sql("whose", tombstones=tombstones, index=qualified(schema, "sync_tombstone_tenant"))


def _whose_step(catalog: Catalog) -> Step:
    tombstones, positions = (qualified(catalog.schema, name) for name in _SHARED)
    return Step(
        sentence=f"Let {catalog.schema}.{TOMBSTONES} say whose a deleted row was.",
        lock=f"LOCK TABLE {tombstones}, {positions} IN ACCESS EXCLUSIVE MODE",
        statements=(_whose(catalog.schema, tombstones), sql("positions_whose", positions=positions)),
        locked=(tombstones, positions),
    )


def misses_changes(
    catalog: Catalog, table: TableState, key: Sequence[str], tenant: str | None = None
) -> bool:
    """Whether changes of a source table can escape capture; TRUNCATE of a single new partition may."""
    return (
        SYNC_COLUMN not in table.columns
        or not _writes_tombstones(catalog, table, key, tenant)
        or not all(trigger.was_on(catalog, table) for trigger in triggers_of(table, key, tenant))
    )


def _writes_tombstones(catalog: Catalog, table: TableState, key: Sequence[str], tenant: str | None) -> bool:
    """Whether the function for the table's deletes is there, in its current form or in an earlier one."""
    found = catalog.functions.get(tombstone_function(table))
    known = (tombstone_body(table, key, tenant), *earlier_tombstone_bodies(table, key, tenant))
    return found in known


def _capture_steps(
    catalog: Catalog, table: TableState, key: Sequence[str], tenant: str | None, *, whose: bool
) -> Iterator[Step]:
    """Yield at most one step: no write may happen between adding the column and its triggers."""
    name = qualified(table.schema, table.name)
    column = table.columns.get(SYNC_COLUMN)
    triggers = triggers_of(table, key, tenant)
    body = tombstone_body(table, key, tenant)
    same = catalog.functions.get(tombstone_function(table)) == body
    function = [] if same else [function_definition(tombstone_function(table), body)]
    # Another key changes a trigger's condition too, and such conditions cannot be compared.
    known = _writes_tombstones(catalog, table, key, tenant)
    triggers = [each for each in triggers if not each.is_on(table) or (each.of_key and not known)]
    leaves = [leaf for leaf in table.leaves if not truncate_trigger(table).is_on(leaf)]
    statements = [
        *([sql("column", table=name)] if column is None else []),
        *([sql("default", table=name)] if column is None or column.default != _STAMP else []),
        *function,
        *(statement for trigger in triggers for statement in put(trigger, table)),
        *(statement for leaf in leaves for statement in put(truncate_trigger(table), leaf)),
    ]
    notifying = notify_statements(table, catalog.schema)
    always = [
        trigger.always(each)
        for trigger in [*triggers_of(table, key, tenant), notify_trigger(catalog.schema)]
        for each in ((table, *table.leaves) if trigger.name in _ON_PARTITIONS else (table,))
        if trigger.is_on(each) and not trigger.fires_always(each)
    ]
    if not statements:
        # Nothing was missed for lack of it: a new epoch, as below, would cause a needless rescan.
        if notifying:
            yield _notify_step(table, notifying)
        if always:
            yield _always_step(table, always)
        return
    statements += [*notifying, *always]
    locked = [name]
    if any(not each.was_on(catalog, table) or each.of_key for each in triggers) and (
        column is not None or TOMBSTONES in catalog.tables
    ):
        # Changes may have been missed. A new sync_tombstone is a new epoch: every row is read again.
        tombstones = qualified(catalog.schema, TOMBSTONES)
        before = qualified(catalog.schema, f"{TOMBSTONES}_before")
        create = _tombstones(tombstones)
        if whose:
            create = f"{create};\n{_whose(catalog.schema, tombstones)}".rstrip()
        # Keys are read only from a table that runs no other role's code.
        statements.append(write_guard([tombstones]))
        statements.append(
            sql(
                "epoch",
                tombstones=tombstones,
                before=before,
                create=create,
                before_text=literal(before),
                tombstones_text=literal(tombstones),
                whose=", tenant" if whose else "",
            )
        )
        locked.append(tombstones)
    yield Step(
        sentence=f"Capture every change of table {table.schema}.{table.name}: "
        "column sync_xid, triggers for versions, for deletes and for notifications.",
        lock=f"LOCK TABLE {', '.join(locked)} IN ACCESS EXCLUSIVE MODE",
        statements=tuple(statements),
        locked=tuple(locked),
    )


def _always_step(table: TableState, statements: Sequence[str]) -> Step:
    # They were enabled all the time, and stay so: sessions for which they fired missed nothing.
    name = qualified(table.schema, table.name)
    return Step(
        sentence=f"Capture table {table.schema}.{table.name} in replication sessions too.",
        lock=f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE",
        statements=tuple(statements),
        locked=(name,),
    )


def _notify_step(table: TableState, statements: Sequence[str]) -> Step:
    tables = [qualified(each.schema, each.name) for each in (table, *table.leaves)]
    return Step(
        sentence=f"Notify workers of changes of table {table.schema}.{table.name}: a statement trigger.",
        lock=f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE",
        statements=tuple(statements),
        locked=tuple(tables),
    )


def _index_steps(
    catalog: Catalog, table: TableState, key: Sequence[str], tenant: str | None
) -> Iterator[Step]:
    for leaf in table.leaves or (table,):
        if any(serves_capture(table, index, key, tenant) and index.valid for index in leaf.indexes):
            continue
        yield _build(catalog, leaf, key, tenant, concurrently=True)
    if table.partitioned and not any(
        serves_capture(table, index, key, tenant) and index.valid for index in table.indexes
    ):
        # Postgres does not support CONCURRENTLY here; it attaches the partitions' indexes and builds none.
        yield _build(catalog, table, key, tenant, concurrently=False)


def _build(
    catalog: Catalog, table: TableState, key: Sequence[str], tenant: str | None, *, concurrently: bool
) -> Step:
    leftovers = [
        index.name for index in table.indexes if serves_capture(table, index, key, tenant) and not index.valid
    ]
    taken = {name for schema, name in catalog.names if schema == table.schema} - set(leftovers)
    name = index_name(table.name, frozenset(taken))
    how = "CONCURRENTLY " if concurrently else ""
    drops = [f"DROP INDEX {how}IF EXISTS {qualified(table.schema, left)}" for left in leftovers]
    relation = qualified(table.schema, table.name)
    # ANALYZE reads a sample and blocks nobody. First, so that an interrupted step is repeated as a whole.
    columns = dict.fromkeys([*key, *([] if tenant is None else [tenant])])
    counted = [sql("analyze", table=relation, key=", ".join(map(quoted, columns)))] if concurrently else []
    create = sql(
        "index",
        how=how,
        name=quoted(name),
        table=relation,
        key=index_columns(table, key),
        tenant="" if tenant is None else f"{index_columns(table, [tenant])}, ",
    )
    again = " again, because its build was interrupted" if leftovers else ""
    return Step(
        sentence=f"Build index {name} on {table.schema}.{table.name}{again}.",
        statements=(*drops, *counted, create),
        locked=() if concurrently else (relation,),
        alone=concurrently,
    )
