"""What capture is made of on one table: its triggers, and the function that they call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from syncline.adoption.catalog import FunctionState, IndexState, TableState
from syncline.adoption.naming import (
    NOTIFY_FUNCTION,
    SYNC_COLUMN,
    TOMBSTONES,
    VERSION_FUNCTION,
    fitted,
    qualified,
)
from syncline.sqltext import Statements, literal, quoted, statements_of

__all__ = [
    "AFTER_STATEMENT",
    "Trigger",
    "function_definition",
    "is_ours",
    "owned_function",
    "put",
    "serves_capture",
    "sql",
    "tombstone_body",
    "tombstone_function",
    "triggers_of",
    "truncate_trigger",
]

_FUNCTION_PREFIX = f"{TOMBSTONES}_"
# The rights of whoever adopts, since writers have none on the tombstones; and so no search_path but this one.
_CONFIGURATION = ("search_path=pg_catalog, pg_temp",)
_ROW, _BEFORE, _INSERT, _DELETE, _UPDATE, _TRUNCATE = 1, 2, 4, 8, 16, 32
AFTER_STATEMENT = _INSERT | _DELETE | _UPDATE | _TRUNCATE
"""The kind of a trigger after any statement that may change rows."""

sql: Statements = statements_of("syncline.adoption")


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A trigger that a table needs. `timing` and `rows` are its SQL before and after the table's name."""

    name: str
    kind: int
    timing: str
    rows: str
    function: tuple[str, str]
    conditional: bool = False
    old_table: str | None = None

    def is_on(self, table: TableState) -> bool:
        """Whether the table has it, and it is as it must be."""
        found = table.triggers.get(self.name)
        return (
            found is not None
            and found.enabled
            and (
                (found.kind, found.conditional, found.old_table, found.function)
                == (self.kind, self.conditional, self.old_table, self.function)
            )
        )

    def fires_always(self, table: TableState) -> bool:
        """Whether the table's, which `is_on`, fires whatever the session's role in a replication is."""
        return table.triggers[self.name].always

    def always(self, table: TableState) -> str:
        """Return the DDL that makes it so: a session that applies what another one wrote changes rows too."""
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


def triggers_of(table: TableState, key: Sequence[str]) -> list[Trigger]:
    """Return the triggers that a source table needs."""
    function = tombstone_function(table)
    version = Trigger(
        name="capture_version",
        kind=_ROW | _BEFORE | _INSERT | _UPDATE,
        timing="BEFORE INSERT OR UPDATE",
        rows="FOR EACH ROW",
        function=VERSION_FUNCTION,
    )
    # Set-wise where it can be. A row that leaves its partition, or is deleted there, has row triggers only.
    old_table = None if table.partitioned else "sync_old_rows"
    deletion = Trigger(
        name="capture_delete",
        kind=_DELETE if old_table else _ROW | _DELETE,
        timing="AFTER DELETE",
        rows=f"REFERENCING OLD TABLE AS {old_table} FOR EACH STATEMENT" if old_table else "FOR EACH ROW",
        function=function,
        old_table=old_table,
    )
    # Bytewise, since some types call different texts equal. No `UPDATE OF`: it does not see the key that
    # another trigger has changed.
    changed = " OR ".join(
        f'OLD.{quoted(column)}::text COLLATE "C" IS DISTINCT FROM NEW.{quoted(column)}::text COLLATE "C"'
        for column in key
    )
    rekeying = Trigger(
        name="capture_key",
        kind=_ROW | _UPDATE,
        timing="AFTER UPDATE",
        rows=f"FOR EACH ROW WHEN ({changed})",
        function=function,
        conditional=True,
    )
    return [version, deletion, rekeying, truncate_trigger(table)]


def truncate_trigger(table: TableState) -> Trigger:
    """Return the trigger that a source table needs, and each partition too: one can be emptied alone."""
    return Trigger(
        name="capture_truncate",
        kind=_BEFORE | _TRUNCATE,
        timing="BEFORE TRUNCATE",
        rows="FOR EACH STATEMENT",
        function=tombstone_function(table),
    )


def is_ours(function: tuple[str, str], schema: str) -> bool:
    """Whether a trigger function of a table in `schema` is capture's."""
    return function in (VERSION_FUNCTION, (schema, NOTIFY_FUNCTION)) or (
        function[0] == schema and function[1].startswith(_FUNCTION_PREFIX)
    )


def tombstone_function(table: TableState) -> tuple[str, str]:
    """Return schema and name of the function that writes a table's tombstones."""
    return table.schema, fitted(_FUNCTION_PREFIX, table.name)


def tombstone_body(table: TableState, key: Sequence[str]) -> FunctionState:
    """Return that function as it must be."""

    def keys(row: str) -> str:
        return f"ARRAY[{', '.join(f'{row}.{quoted(column)}::text' for column in key)}]"

    body = sql(
        "tombstone_rows" if table.partitioned else "tombstone_sets",
        tombstones=qualified(table.schema, TOMBSTONES),
        table=qualified(table.schema, table.name),
        source=f"'{literal(table.name)}'",
        old_key=keys("OLD"),
        row_key=keys("r"),
        row_key_text=literal(keys("r")),
        tombstones_text=literal(qualified(table.schema, TOMBSTONES)),
    )
    return owned_function(body)


def owned_function(body: str) -> FunctionState:
    """Return a trigger function that runs with the rights of whoever adopts."""
    return FunctionState(body=f"\n{body}\n", definer=True, configuration=_CONFIGURATION)


def function_definition(name: tuple[str, str], function: FunctionState) -> str:
    """Return the DDL of an owned function."""
    tag = "$capture$"
    while tag in function.body:
        tag = f"{tag[:-1]}_$"
    return sql("function", function=qualified(*name), body=f"{tag}{function.body}{tag}")


def put(trigger: Trigger, table: TableState) -> Iterator[str]:
    """Yield the DDL that gives the table the trigger, in place of one of its name."""
    if trigger.name in table.triggers:
        yield f"DROP TRIGGER {quoted(trigger.name)} ON {qualified(table.schema, table.name)}"
    yield trigger.create(table)
    yield trigger.always(table)


def serves_capture(index: IndexState, key: Sequence[str]) -> bool:
    """Whether an index has the order that rows are captured in."""
    return index.plain and index.keys == ((SYNC_COLUMN, None), *((column, "C") for column in key))
