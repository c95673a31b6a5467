"""Pieces that several statements share: what a row becomes, the names of a link table, the vector queue."""

from collections.abc import Callable

from syncline.engine.layout import reference_id
from syncline.engine.tablemap import Links, SchemaMap, TableMap
from syncline.engine.template import sql
from syncline.sqltext import literal, quoted

__all__ = ["Rendered", "link_names", "merged_values", "queue", "unrejected"]

Rendered = Callable[[str], str]
"""A statement that is still open for where its staged rows come from: a FROM item."""


def merged_values(table: TableMap) -> dict[str, str]:
    """Return target column -> expression over the staged row `s`, without the engine's own columns."""
    values = {"id": "s.sync_row_id", "key": f"s.{quoted(table.key[0])}"} if table.identified else {}
    values |= {
        reference.target_column: f"s.{reference_id(reference.column)}" for reference in table.references
    }
    values |= {column.name: f"s.{quoted(column.name)}" for column in table.columns}
    return values | dict(table.expressions)


def link_names(links: Links) -> dict[str, str]:
    """Return the fragments that name a link table and both of its ends."""
    return {
        "links": quoted(links.table),
        "links_name": literal(links.table),
        "owner": quoted(links.owner),
        "member": quoted(links.member),
        "parent": quoted(links.parent),
        "parent_name": literal(links.parent),
    }


def unrejected(schema_map: SchemaMap, links: Links) -> str:
    """Return the WHERE clause over wanted links `d` that leaves the rejected out, or nothing."""
    if links.rejected_by is None:
        return ""
    owner, member = schema_map[links.rejected_by].target_key
    return sql(
        "unrejected",
        rejections=quoted(links.rejected_by),
        rejected_owner=quoted(owner),
        rejected_member=quoted(member),
    )


def queue(table: TableMap) -> str:
    """Return the part of a statement that queues the points of rows `changed`, or nothing."""
    return sql("queue", collection=literal(table.vector.collection)) if table.vector else ""
