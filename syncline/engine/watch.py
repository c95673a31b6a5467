"""Capture watch: detects whether a source was captured without a gap since its cursor moved, and what to do.

A catalog row gets a new xmin with each change. So one text of everything that capture consists of shows
whether anything was different in between, even if it has been changed back.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import asyncpg

from syncline.engine.render.statements import Cursor
from syncline.engine.schema_transaction import BY_INDEX
from syncline.engine.template import sql
from syncline.errors import RowsFiltered
from syncline.stores.tenants import reading

__all__ = ["Doubt", "captures", "doubts"]


_TRIGGERS = 4
"""The triggers that capture needs on each source."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What may have been missed of one table."""

    reason: str
    reread: bool
    """Whether changes may have been missed; otherwise only deletes."""


@dataclass(frozen=True, kw_only=True)
class _Way:
    """A `captured` text, parsed."""

    table: object
    triggers: object
    columns: Sequence[Sequence[object]]
    stamps: object
    file: object
    partitions: Mapping[int, Sequence[object]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "_Way":
        table, triggers, columns, stamps, file, partitions = json.loads(text)
        found = {int(partition[0]): partition[1:] for partition in partitions or ()}
        return cls(
            table=table,
            triggers=triggers,
            columns=columns or (),
            stamps=stamps,
            # A partitioned table has no file: whether its partitions were rewritten is unknown.
            file=None if file == "0" else file,
            partitions=found,
        )

    def shared_with(self, other: "_Way") -> "_Way":
        """Return it with the columns alone that the other has too."""
        names = {column[1] for column in other.columns}
        columns = [column for column in self.columns if column[1] in names]
        return replace(self, columns=columns)


def captures(way: str) -> bool:
    """Return whether a source's triggers existed and were enabled when this text was read."""
    triggers = str(json.loads(way)[1] or "").split(",")
    return len(triggers) == _TRIGGERS and all(trigger.split(":")[2] in "OA" for trigger in triggers)


async def doubts(
    source: asyncpg.Connection,
    before: Mapping[str, str],
    now: Mapping[str, str],
    cursors: Mapping[str, Cursor],
    *,
    remapped: Collection[str] = (),
) -> dict[str, Doubt]:
    """Return what may have been missed of the tables that are captured differently than before.

    Of the tables in `remapped`, the map names other columns than before: only those of both are compared.
    """
    found: dict[str, Doubt] = {}
    for name, text in before.items():
        if name in now:
            way, current = _Way.of(text), _Way.of(now[name])
            if name in remapped:
                way, current = way.shared_with(current), current.shared_with(way)
            doubt = await _doubt(source, way, current, cursors[name])
            if doubt is not None:
                found[name] = doubt
    return found


async def _doubt(source: asyncpg.Connection, before: _Way, now: _Way, cursor: Cursor) -> Doubt | None:
    if before.table != now.table:
        return Doubt(reason="its source is another table", reread=True)
    if before.triggers != now.triggers:
        return Doubt(reason="its triggers were changed", reread=True)
    if before.columns != now.columns:
        return Doubt(reason="columns of its source were changed", reread=True)
    # For an ordinary table, a rewrite that kept the type made a new file; without one, no value changed.
    if before.stamps != now.stamps and (now.file is None or before.file != now.file):
        return Doubt(reason="columns of its source were rewritten", reread=True)
    return await _partitions_doubt(source, before.partitions, now.partitions, cursor)


async def _partitions_doubt(
    source: asyncpg.Connection,
    before: Mapping[int, Sequence[object]],
    now: Mapping[int, Sequence[object]],
    cursor: Cursor,
) -> Doubt | None:
    # The last part is the trigger for TRUNCATE of the partition alone.
    other = [oid for oid, parts in now.items() if before.get(oid, [None])[:-1] != parts[:-1]]
    for oid in other:
        if await _has_passed_rows(source, oid, cursor):
            return Doubt(reason="a partition was attached with rows, or was changed separately", reread=True)
    gone = before.keys() - now.keys()
    if gone or any(before[oid] != parts for oid, parts in now.items() if oid in before):
        return Doubt(reason="a partition was detached, at least for a while", reread=False)
    return None


async def _has_passed_rows(source: asyncpg.Connection, oid: int, cursor: Cursor) -> bool:
    """Return whether a partition has rows before the cursor, which would never be read."""
    name = await source.fetchval(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
        oid,
    )
    if name is None:
        return False
    try:
        async with reading(source, [name], first=BY_INDEX):
            first = await source.fetchval(sql("partition_first", partition=name))
    except (asyncpg.InsufficientPrivilegeError, RowsFiltered):
        # Privileges and policies are checked on the whole table; a partition need not have them.
        return True
    return first is not None and first <= cursor.xid
