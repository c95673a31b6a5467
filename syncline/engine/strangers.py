"""Strangers: rows of a target whose id is not the one that the map makes of their key.

No cycle finds them by its own ids: it would write each of these rows once more, beside the one that stands.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from syncline.engine.map_changes import (
    Definition,
    definition_of,
    keeps_no_longer,
    listed_by,
    lists_anew,
)
from syncline.engine.render.identity import Identity
from syncline.engine.standing import stands_elsewhere
from syncline.engine.table_map import SchemaMap
from syncline.engine.template import sql
from syncline.maps.key_types import key_type
from syncline.sql import quoted

__all__ = ["Leaving", "strange_condition", "strangers", "ways_to_leave"]

_SAID: Final = (
    "Rows stand there whose id the map does not make of their key: delete them and what refers to them, and "
    "the next cycle writes all of it again; or let rule `id` of the table say how their ids were made "
    "(`syncline graph takeover GRAPH --dry-run` lists them)."
)
_DEEPEST: Final = 8
"""Tables between a stranger and what refers to it, over which statements are made."""


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """The statements that make a table's strangers leave, in an order that no foreign key refuses."""

    statements: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(f"{statement};" for statement in self.statements)


def strange_condition(
    schema_map: SchemaMap,
    table: str,
    *,
    schema: str | None = None,
    before: Definition | None = None,
    earlier: SchemaMap | None = None,
) -> str | None:
    """Return the condition that target row `t` is a stranger, or its key cannot be read.

    None where no row can be one: the id is the key itself, the parts of the key are the primary key, or rows
    that are not listed are others'. `before` is the table's definition by which its rows were written.
    """
    own = Identity(schema_map, schema_map[table], schema=schema)
    if not own.table.listed:
        elsewhere = stands_elsewhere(schema_map, earlier, table, schema=schema)
        return elsewhere or (own.is_strange("t") if own.can_be_strange else None)
    if before is not None and keeps_no_longer(before, definition_of(own.table)):
        return own.kept("t")
    if before is not None and lists_anew(before, definition_of(own.table)):
        if own.table.id is not None and own.table.id.natural:
            return None  # those found by a natural key keep theirs
        if (listed := listed_by(before)) is not None and key_type(listed[1]) == own.table.id_type:
            return own.was_ours("t", listed[0])
        # Its rows were all ours, and under other ids.
        return f"NOT {own.is_ours('t')}"
    return None if own.table.looked_up else f"{own.is_ours('t')} AND {own.is_strange('t')}"


async def strangers(
    target: asyncpg.Connection,
    schema_map: SchemaMap,
    names: Sequence[str],
    *,
    before: Mapping[str, Definition] | None = None,
    earlier: SchemaMap | None = None,
) -> AsyncIterator[tuple[str, str]]:
    """Yield the tables that have strangers, and what mends it. An empty table costs nothing."""
    if not names:
        return
    schema = await target.fetchval("SELECT current_schema()")
    for name in names:
        was = (before or {}).get(name)
        condition = strange_condition(schema_map, name, schema=schema, before=was, earlier=earlier)
        if condition is None:
            continue
        if await target.fetchval(sql("strangers_any", target=quoted(name), strange=condition)):
            yield name, f"{_SAID} {await ways_to_leave(target, name, condition, schema=schema)}"


async def ways_to_leave(target: asyncpg.Connection, name: str, condition: str, *, schema: str) -> Leaving:
    """Return how a table's strangers leave: what refers to them by foreign keys first, whoever made those."""
    place = f"{quoted(schema)}.{quoted(name)}"
    found = await _referring(target, place, "t", condition, passed=(place,))
    return Leaving(statements=(*found, sql("strangers_leave", target=place, strange=condition).strip()))


async def _referring(
    target: asyncpg.Connection, parent: str, alias: str, condition: str, *, passed: Sequence[str]
) -> list[str]:
    """Return the statements for what refers to the parent's rows of the condition, deepest first."""
    if len(passed) > _DEEPEST:
        return []
    statements: list[str] = []
    for key in await target.fetch(sql("strangers_referring"), parent):
        child = f"{quoted(key['child_schema'])}.{quoted(key['child_name'])}"
        row = f"r{len(passed)}"
        same = " AND ".join(
            f"{alias}.{quoted(there)} = {row}.{quoted(here)}"
            for here, there in zip(key["here"], key["there"], strict=True)
        )
        refers = sql("strangers_refers", parent=parent, alias=alias, same=same, strange=condition).strip()
        parts = {"child": child, "alias": row, "refers": refers}
        if child in passed:
            # Rows of the same table that stay: they lose the reference, until they are read again.
            if key["nullable"]:
                unset = ", ".join(f"{quoted(column)} = NULL" for column in key["here"])
                statements.append(sql("strangers_unrefer", unset=unset, **parts).strip())
            continue
        statements += await _referring(target, child, row, refers, passed=(*passed, child))
        if not key["cascades"]:
            statements.append(sql("strangers_referring_leave", **parts).strip())
    return statements
