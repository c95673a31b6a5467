"""Capture objects of one table: its triggers, and the functions that they call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from syncline.capture.install.catalog import Catalog, FunctionState, IndexState, TableState
from syncline.capture.install.steps import (
    NOTIFY_FUNCTION,
    SHARED_VERSION_FUNCTION,
    SYNC_COLUMN,
    TOMBSTONES,
    VERSION_FUNCTION,
    fitted,
    qualified,
)
from syncline.engine.key_forms import form, ordered
from syncline.maps.key_types import TEXT, KeyType, Kind, key_type
from syncline.sql import Statements, literal, quoted, statements_of

__all__ = [
    "AFTER_STATEMENT",
    "Trigger",
    "earlier_tombstone_bodies",
    "function_definition",
    "index_columns",
    "is_ours",
    "owned_function",
    "put",
    "serves_capture",
    "sql",
    "tombstone_body",
    "tombstone_function",
    "triggers_of",
    "truncate_trigger",
    "version_body",
]

_VERSION = "capture_version"
_FUNCTION_PREFIX = f"{TOMBSTONES}_"
_PATH = ("search_path=pg_catalog, pg_temp",)
"""Of a function whose names are not all qualified. To set it costs a writer a sixth of a small statement."""
# A date has one text, whatever the writer's session says.
_ISO = ("DateStyle=iso, mdy",)
_FIXED = {
    Kind.DATE: _ISO,
    Kind.TIMESTAMP: _ISO,
    Kind.TIMESTAMPTZ: (*_ISO, "TimeZone=utc"),
}
_CAST_ALONE = {Kind.TEXT, Kind.UUID, Kind.INTEGER}
"""Keys whose text is a cast, whatever the session's settings."""
_ROW, _BEFORE, _INSERT, _DELETE, _UPDATE, _TRUNCATE = 1, 2, 4, 8, 16, 32
AFTER_STATEMENT = _INSERT | _DELETE | _UPDATE | _TRUNCATE
"""The kind of a trigger after any statement that may change rows."""

sql: Statements = statements_of("syncline.capture.install")


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A trigger that a table needs. `timing` and `rows` are the SQL before and after the table's name."""

    name: str
    kind: int
    timing: str
    rows: str
    function: tuple[str, str]
    stamps: bool = False
    """Whether it stamps rows, which one trigger for INSERT and UPDATE did in earlier releases."""
    condition: str | None = None
    """Its WHEN clause, as Postgres prints it."""
    of_key: bool = False
    """Whether it has another WHEN clause, which depends on the key and is not compared."""
    old_table: str | None = None

    def is_on(self, table: TableState) -> bool:
        """Whether the table has it in its current form."""
        found = table.triggers.get(self.name)
        same = self.of_key or (found is not None and found.condition == self.condition)
        return same and self._calls(self.function, table, conditional=self.of_key or bool(self.condition))

    def was_on(self, catalog: Catalog, table: TableState) -> bool:
        """Whether the table has it, in its current form or in that of an earlier release."""
        return self.is_on(table) or (self.stamps and _stamped_by_one(catalog, table))

    def _calls(self, function: tuple[str, str], table: TableState, *, conditional: bool) -> bool:
        found = table.triggers.get(self.name)
        return (
            found is not None
            and found.enabled
            and (
                (found.kind, found.conditional, found.old_table, found.function)
                == (self.kind, conditional, self.old_table, function)
            )
        )

    def fires_always(self, table: TableState) -> bool:
        """Whether the table's trigger, which `is_on`, fires in replication sessions too."""
        return table.triggers[self.name].always

    def always(self, table: TableState) -> str:
        """Return the DDL for that: a session that applies replicated changes writes rows too."""
        return f"ALTER TABLE {qualified(table.schema, table.name)} ENABLE ALWAYS TRIGGER {quoted(self.name)}"

    def create(self, table: TableState) -> str:
        """Return its DDL."""
        return sql(
            "trigger",
            name=quoted(self.name),
            timing=self.timing,
            table=qualified(table.schema, table.name),
            rows=self.rows,
            function=qualified(*self.function),
        )


def triggers_of(table: TableState, key: Sequence[str], tenant: str | None = None) -> list[Trigger]:
    """Return the triggers that a source table needs."""
    function = tombstone_function(table)
    stamp = (table.schema, VERSION_FUNCTION)
    version = Trigger(
        name=_VERSION,
        kind=_ROW | _BEFORE | _INSERT,
        timing="BEFORE INSERT",
        rows=f"FOR EACH ROW WHEN ({_condition()})",
        function=stamp,
        condition=_as_printed(_condition()),
        stamps=True,
    )
    # A condition would hold for nearly every row, and Postgres parses it anew for each statement.
    update = Trigger(
        name="capture_update",
        kind=_ROW | _BEFORE | _UPDATE,
        timing="BEFORE UPDATE",
        rows="FOR EACH ROW",
        function=stamp,
        stamps=True,
    )
    # Statement triggers where possible. A row moved or deleted within partitions fires row triggers only.
    old_table = None if table.partitioned else "sync_old_rows"
    deletion = Trigger(
        name="capture_delete",
        kind=_DELETE if old_table else _ROW | _DELETE,
        timing="AFTER DELETE",
        rows=f"REFERENCING OLD TABLE AS {old_table} FOR EACH STATEMENT" if old_table else "FOR EACH ROW",
        function=function,
        old_table=old_table,
    )
    # Bytewise, since some types treat different texts as equal. No `UPDATE OF`: it misses a key that another
    # trigger has changed.
    # A row that moves to another tenant leaves the graph of the first, as under another key.
    changed = " OR ".join(_changed(table, column) for column in dict.fromkeys(_with_tenant(key, tenant)))
    rekeying = Trigger(
        name="capture_key",
        kind=_ROW | _UPDATE,
        timing="AFTER UPDATE",
        rows=f"FOR EACH ROW WHEN ({changed})",
        function=function,
        of_key=True,
    )
    return [version, update, deletion, rekeying, truncate_trigger(table)]


def _stamped_by_one(catalog: Catalog, table: TableState) -> bool:
    """Whether a trigger of an earlier release stamps inserted and updated rows."""
    found = table.triggers.get(_VERSION)
    if found is None or not found.enabled or found.kind != _ROW | _BEFORE | _INSERT | _UPDATE:
        return False
    if found.function == (table.schema, VERSION_FUNCTION):
        return not found.conditional or found.condition == _as_printed(_condition())
    shared = catalog.functions.get(SHARED_VERSION_FUNCTION)
    return (
        found.function == SHARED_VERSION_FUNCTION
        and not found.conditional
        and shared is not None
        and shared.body.strip() == sql("shared_version_body").strip()
    )


def _condition() -> str:
    return sql("version_condition").strip()


def _as_printed(condition: str) -> str:
    return f"({condition.replace('NEW', 'new')})"


def _type_of(table: TableState, column: str) -> KeyType:
    """Return a key column's type; text for every type that travels as text."""
    found = table.columns.get(column)
    return (found and key_type(found.type)) or TEXT


def _with_tenant(key: Sequence[str], tenant: str | None) -> Sequence[str]:
    return key if tenant is None else (*key, tenant)


def _changed(table: TableState, column: str) -> str:
    if _type_of(table, column).kind is not Kind.TEXT:
        return f"OLD.{quoted(column)} IS DISTINCT FROM NEW.{quoted(column)}"
    return f'OLD.{quoted(column)}::text COLLATE "C" IS DISTINCT FROM NEW.{quoted(column)}::text COLLATE "C"'


def truncate_trigger(table: TableState) -> Trigger:
    """Return the TRUNCATE trigger for a source table and each partition, which can be truncated alone."""
    return Trigger(
        name="capture_truncate",
        kind=_BEFORE | _TRUNCATE,
        timing="BEFORE TRUNCATE",
        rows="FOR EACH STATEMENT",
        function=tombstone_function(table),
    )


def is_ours(function: tuple[str, str], schema: str) -> bool:
    """Whether a trigger function of a table in `schema` belongs to capture."""
    ours = (SHARED_VERSION_FUNCTION, (schema, VERSION_FUNCTION), (schema, NOTIFY_FUNCTION))
    return function in ours or (function[0] == schema and function[1].startswith(_FUNCTION_PREFIX))


def tombstone_function(table: TableState) -> tuple[str, str]:
    """Return (schema, name) of the function that writes a table's tombstones."""
    return table.schema, fitted(_FUNCTION_PREFIX, table.name)


def tombstone_body(table: TableState, key: Sequence[str], tenant: str | None = None) -> FunctionState:
    """Return that function in its current form."""
    kinds = {_type_of(table, column).kind for column in _with_tenant(key, tenant)}
    name = "tombstone_rows" if table.partitioned else "tombstone_sets"
    # A function that looks for its names in the writer's search_path runs what the writer put there.
    return _tombstones(name, table, key, tenant, in_path=table.partitioned or not kinds <= _CAST_ALONE)


def earlier_tombstone_bodies(
    table: TableState, key: Sequence[str], tenant: str | None = None
) -> Sequence[FunctionState]:
    """Return the forms that it had in earlier releases, which miss nothing either."""
    if table.partitioned:
        return ()
    return (_tombstones("earlier_tombstone_sets", table, key, tenant, in_path=True, text="text"),)


def _tombstones(
    name: str,
    table: TableState,
    key: Sequence[str],
    tenant: str | None,
    *,
    in_path: bool,
    text: str = "pg_catalog.text",
) -> FunctionState:
    def keys(row: str) -> str:
        return f"ARRAY[{', '.join(part(row, column) for column in key)}]"

    def part(row: str, column: str) -> str:
        type_, value = _type_of(table, column), f"{row}.{quoted(column)}"
        if type_.kind is Kind.TEXT:
            return f"{value}::{text}"
        found = form(type_, value)
        return found.replace("::text", f"::{text}") if type_.kind in _CAST_ALONE else found

    def whose(row: str, named: str = "") -> str:
        return "" if tenant is None else f", coalesce({part(row, tenant)}, ''){named}"

    body = sql(
        name,
        tombstones=qualified(table.schema, TOMBSTONES),
        table=qualified(table.schema, table.name),
        source=f"'{literal(table.name)}'",
        old_key=keys("OLD"),
        row_key=keys("r"),
        row_key_text=literal(keys("r")),
        packed="pg_catalog.array_agg(p.key)" + ("" if tenant is None else ", p.tenant"),
        packed_tenant="" if tenant is None else ", p.tenant",
        whose="" if tenant is None else ", tenant",
        old_tenant=whose("OLD"),
        row_tenant=whose("r"),
        row_tenant_named=whose("r", " AS tenant"),
        row_tenant_text=literal(whose("r")),
        tombstones_text=literal(qualified(table.schema, TOMBSTONES)),
    )
    settings = [each for column in key for each in _FIXED.get(_type_of(table, column).kind, ())]
    return owned_function(body, settings=tuple(dict.fromkeys((*(_PATH if in_path else ()), *settings))))


def owned_function(body: str, *, settings: Sequence[str] = _PATH) -> FunctionState:
    """Return a trigger function that runs as the tables' owner: writers have no right to what it writes."""
    return FunctionState(body=f"\n{body}\n", definer=True, configuration=tuple(settings))


def version_body() -> FunctionState:
    """Return the function that stamps rows; it runs as the writer and qualifies every name it uses."""
    body = sql("version_body").strip()
    return FunctionState(body=f"\n{body}\n", definer=False, configuration=())


def function_definition(name: tuple[str, str], function: FunctionState) -> str:
    """Return the DDL of an owned function."""
    tag = "$capture$"
    while tag in function.body:
        tag = f"{tag[:-1]}_$"
    return sql(
        "function",
        function=qualified(*name),
        settings="".join(f" SET {setting.replace('=', ' = ', 1)}" for setting in function.configuration),
        body=f"{tag}{function.body}{tag}",
    )


def put(trigger: Trigger, table: TableState) -> Iterator[str]:
    """Yield the DDL that creates the trigger on the table, replacing one of the same name."""
    if trigger.name in table.triggers:
        yield f"DROP TRIGGER {quoted(trigger.name)} ON {qualified(table.schema, table.name)}"
    yield trigger.create(table)
    yield trigger.always(table)


def serves_capture(
    table: TableState, index: IndexState, key: Sequence[str], tenant: str | None = None
) -> bool:
    """Whether an index has the order in which rows are captured."""

    def ordering(columns: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        for column in columns:
            yield column, "C" if _type_of(table, column).kind is Kind.TEXT else None

    whose = () if tenant is None else (tenant,)
    return index.plain and index.keys == (*ordering(whose), (SYNC_COLUMN, None), *ordering(key))


def index_columns(table: TableState, key: Sequence[str]) -> str:
    """Return the key's columns as the index of capture has them."""
    return ", ".join(ordered(_type_of(table, column), quoted(column)) for column in key)
