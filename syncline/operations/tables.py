"""Tables by the names that people know them by."""

from collections.abc import Sequence

from syncline.engine.tablemap import SchemaMap, TableMap
from syncline.errors import InputInvalid
from syncline.quoting import shown

__all__ = ["find_row", "find_table", "naming_values"]


def find_table(schema_map: SchemaMap, name: str) -> TableMap:
    """Return the table whose target or source has this name, or raise InputInvalid listing the known ones."""
    for table in schema_map:
        if name in (table.name, table.source):
            return table
    known = ", ".join(table.name for table in schema_map)
    raise InputInvalid(f"No table {shown(name)} is synced. Known: {known}; or their names in the write-db.")


def find_row(schema_map: SchemaMap, name: str, key: Sequence[str]) -> TableMap:
    """Return the table if `key` can be a key of it, or raise InputInvalid saying what a key of it is."""
    table = find_table(schema_map, name)
    if len(key) != len(table.key):
        parts = "one part" if len(table.key) == 1 else f"{len(table.key)} parts"
        raise InputInvalid(f"A key of {table.name} has {parts}, {' and '.join(table.key)}; not {len(key)}.")
    return table


def naming_values(schema_map: SchemaMap, parent: TableMap) -> list[str]:
    """Return the columns by whose value, instead of the key, other tables name rows of `parent`."""
    references = [reference for table in schema_map for reference in table.references]
    named = [reference.by for reference in references if reference.parent == parent.name and reference.by]
    return list(dict.fromkeys(named))
