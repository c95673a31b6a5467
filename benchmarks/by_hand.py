"""Bare COPY + merge of any tables: what a careful engineer would write to move them once, with a list or without.

Like `benchmarks.bare`: no cursor, lock, parking, outbox, dead letters or batches, and which rows changed is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from benchmarks.bare import deleted_since, pipe

__all__ = ["ByHand", "Listed"]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The rows of one table that a list beside the target names, as SQL over the staged row `b`."""

    table: str
    stage: str
    key: str
    id: str = "NULL"
    """The id in the target as text; NULL if it is the row's id in the list."""
    joined: str = ""


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """The statements of one set of tables."""

    copies: Mapping[str, str]
    """Source table -> condition; staged as `bare_` and its name."""
    merges: Sequence[str]
    changes: Sequence[str]
    """The merges of rows that changed."""
    deletes: Sequence[str]
    listed: Sequence[Listed] = ()
    asked: Sequence[str] = ()
    """What else the map asks for: which links are its own, which points to write."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Source table of what is deleted -> its key, cast to text: a row that has the key again is not deleted."""

    async def move(
        self,
        source: asyncpg.Connection,
        target: asyncpg.Connection,
        *,
        since: int | None,
        listing: bool,
        asked: bool = False,
    ) -> None:
        """Move every row, or those that transaction `since` or a later one stamped.

        `listing`: enter each row in `sync_row` too; `asked`: do what else the map asks for. Both connections have the
        schema on their search_path.
        """
        async with target.transaction():
            for table, condition in self.copies.items():
                columns = await source.fetch(
                    "SELECT quote_ident(attname) || ' ' || format_type(atttypid, NULL) AS said FROM pg_attribute"
                    " WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                    table,
                )
                definitions = ", ".join(column["said"] for column in columns)
                await target.execute(f"CREATE TEMP TABLE bare_{table} ({definitions}) ON COMMIT DROP")
                changed = "" if since is None else f" AND sync_xid >= '{since}'::xid8"
                await pipe(
                    source, target, f"SELECT * FROM {table} WHERE {condition}{changed}", f"bare_{table}"
                )
                if since is not None:
                    await target.execute(f"ANALYZE bare_{table}")
            for statement in self.merges if since is None else self.changes:
                await target.execute(statement)
            for each in self.listed if listing else ():
                await target.execute((_ENTER if since is None else _AGAIN).format(**vars(each)))
            for statement in self.asked if asked else ():
                await target.execute(statement)

    async def delete(
        self,
        source: asyncpg.Connection,
        target: asyncpg.Connection,
        *,
        since: int,
        listing: bool,
        asked: bool = False,
    ) -> None:
        """Delete what transaction `since` or a later one deleted; the foreign keys take the rest along.

        `asked`: but for what the write-db has again.
        """
        async with target.transaction():
            await target.execute(
                "CREATE TEMP TABLE bare_deleted (source_table text, key text[]) ON COMMIT DROP"
            )
            deleted = deleted_since(since)
            if asked:
                again = " ".join(
                    f"WHEN '{table}' THEN {_HERE.format(table=table, key=key)}"
                    for table, key in self.keys.items()
                )
                deleted = (
                    f"SELECT d.* FROM ({deleted}) d WHERE NOT CASE d.source_table {again} ELSE false END"
                )
            await pipe(source, target, deleted, "bare_deleted")
            await target.execute("ANALYZE bare_deleted")
            for statement in self.deletes:
                await target.execute(statement)
            for each in self.listed if listing else ():
                await target.execute(_LEAVE.format(**vars(each)))


_HERE = "EXISTS (SELECT FROM {table} t WHERE t.{key})"
_ENTER = """
INSERT INTO sync_row (table_name, row_id, key, target_id, version, run)
SELECT '{table}', syncline.key_uuid({key}), ARRAY[{key}], {id}, b.sync_xid::text::bigint, 1
FROM bare_{stage} b {joined} ORDER BY 2"""
_AGAIN = """
UPDATE sync_row l SET version = b.sync_xid::text::bigint, run = 2 FROM bare_{stage} b
WHERE l.table_name = '{table}' AND l.row_id = syncline.key_uuid({key})"""
_LEAVE = """
DELETE FROM sync_row l USING bare_deleted d
WHERE d.source_table = '{stage}' AND l.table_name = '{table}' AND l.row_id = syncline.key_uuid(d.key[1])"""
