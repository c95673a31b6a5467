"""Aside: saves and restores rows that foreign keys would delete or change while a referenced row moves."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from syncline.engine.render.fragments import commas
from syncline.engine.template import sql
from syncline.sql import quoted

__all__ = ["Aside", "NotKept"]

_CASCADE, _RESTRICT = "c", "r"


class NotKept(Exception):
    """Dependent rows cannot be saved, so the referenced rows cannot be removed even for a moment."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The rows of one foreign key: their table, where they are saved, how they are restored."""

    keep: str
    put_back: str


class Aside:
    """What foreign keys would do to other tables' rows when rows of a table are removed."""

    def __init__(self, kept: Sequence[_Kept]) -> None:
        self._kept = kept

    @classmethod
    async def plan(cls, target: asyncpg.Connection, table: str, leaving: str) -> "Aside":
        """Find what depends on the leaving rows, recursively; `leaving` is the query for those rows.

        Raises NotKept if it cannot be saved.
        """
        kept: list[_Kept] = []
        oid = await target.fetchval("SELECT $1::text::regclass::oid::text::bigint", table)
        await cls._below(target, oid, leaving, {oid}, kept)
        return cls(kept)

    @classmethod
    async def _below(
        cls, target: asyncpg.Connection, oid: int, leaving: str, above: set[int], kept: list[_Kept]
    ) -> None:
        for row in await target.fetch(sql("aside_constraints"), str(oid)):
            if row["action"] == _RESTRICT:
                raise NotKept
            place = f"pg_temp.sync_aside_{len(kept)}"
            same = " AND ".join(
                f"c.{quoted(column)} = p.{quoted(referenced)}"
                for column, referenced in zip(row["columns"], row["referenced"], strict=True)
            )
            found = f"FROM {row['name']} c WHERE EXISTS (SELECT FROM ({leaving}) p WHERE {same})"
            if row["action"] == _CASCADE:
                if row["child"] in above:
                    raise NotKept
                kept.append(_cascaded(place, found, row))
                beneath = f"SELECT * FROM {place}"  # noqa: S608 # a name of this module's
                await cls._below(target, row["child"], beneath, {*above, row["child"]}, kept)
            else:
                if not row["key"]:
                    raise NotKept
                kept.append(_emptied(place, found, row))

    async def keep(self, target: asyncpg.Connection) -> None:
        """Save the dependent rows, before the rows leave."""
        for rows in self._kept:
            await target.execute(rows.keep)

    async def put_back(self, target: asyncpg.Connection) -> None:
        """Restore everything, within the same transaction."""
        for rows in self._kept:
            await target.execute(rows.put_back)


def _cascaded(place: str, found: str, row: asyncpg.Record) -> _Kept:
    columns = commas([quoted(column) for column in row["written"]])
    return _Kept(
        keep=_kept_as(place, f"SELECT c.* {found}"),
        put_back=(
            f"INSERT INTO {row['name']} ({columns}) OVERRIDING SYSTEM VALUE"  # noqa: S608 # quoted names
            f" SELECT {columns} FROM {place}"
        ),
    )


def _emptied(place: str, found: str, row: asyncpg.Record) -> _Kept:
    columns = list(dict.fromkeys([*row["key"], *row["columns"]]))
    assignments = commas([f"{quoted(column)} = p.{quoted(column)}" for column in row["columns"]])
    same = " AND ".join(f"c.{quoted(column)} = p.{quoted(column)}" for column in row["key"])
    return _Kept(
        keep=_kept_as(place, f"SELECT {commas([f'c.{quoted(column)}' for column in columns])} {found}"),
        put_back=f"UPDATE {row['name']} c SET {assignments} FROM {place} p WHERE {same}",  # noqa: S608 # the same
    )


def _kept_as(place: str, query: str) -> str:
    name = place.removeprefix("pg_temp.")
    return f"DROP TABLE IF EXISTS {place}; CREATE TEMP TABLE {name} ON COMMIT DROP AS {query}"
