"""Recounts: the statements that make denormalised counts, of noted rows, of a page of rows, and of all."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import asyncpg

from syncline.engine.key_forms import cast, form
from syncline.engine.render.fragments import column as column_name
from syncline.engine.render.fragments import commas
from syncline.engine.render.identity import ours
from syncline.engine.render.kept import counted_rows, referred, stubbing
from syncline.engine.render.stats import all_uuids, noted_in, stats_label, stubs_label
from syncline.engine.table_map import SchemaMap, Stat, Stats, TableMap
from syncline.engine.template import sql
from syncline.maps.key_types import Kind
from syncline.sql import literal, quoted

__all__ = ["Recount"]

_ANALYZE_FROM = 200
"""From this many touched rows on, ANALYZE pays off: without it, every pair of them may be compared."""


class Recount:
    """The statements that update the counts of noted rows."""

    def __init__(self, schema_map: SchemaMap) -> None:
        self.noted = noted_in(schema_map)
        """The temporary table with the noted rows."""
        self.create = sql(
            "touched_create", noted=self.noted, type="uuid" if all_uuids(schema_map) else "text"
        )
        self._noted_as_text = not all_uuids(schema_map)
        self._counting = {
            table.name: (table, _groups(table, stats))
            for table in schema_map
            if (stats := table.stats) is not None
        }
        self._map = schema_map
        self._stubs = [
            (stubs_label(table.name), self._left(table))
            for table in schema_map
            if stubbing(schema_map, table)
        ]
        self._statements: dict[tuple[str, frozenset[str]], str] = {}
        self.counted = frozenset(self._counting)
        """The tables whose rows have counts."""

    def reads(self, table: str) -> list[str]:
        """Return the target and link tables that are read to count for a table; none if it has no counts."""
        if table not in self._counting:
            return []
        counting, groups = self._counting[table]
        counted = (stat.counted for group in groups.values() for stat in group)
        return list(dict.fromkeys([counting.target, *counted]))

    def _left(self, table: TableMap) -> str:
        return sql(
            "stubs_left",
            table=literal(table.name),
            noted=self.noted,
            label=literal(stubs_label(table.name)),
            referred=referred(self._map, table, f"u.id::{table.id_type.native}"),
        )

    async def run(self, target: asyncpg.Connection, *, put_off: Collection[str] = ()) -> bool:
        """Recount for every row that the transaction has noted, but for those of the tables `put_off`.

        Return whether stubs were requested to leave: the last row that referred to them has left.
        """
        if not (self._counting or self._stubs):
            return False
        rows = await target.fetch(sql("noted", noted=self.noted))
        noted = {row["counted"] for row in rows}
        leaving = False
        for label, statement in self._stubs:
            if label in noted:
                leaving |= await target.execute(statement) != "INSERT 0 0"
        if sum(row["touched"] for row in rows) >= _ANALYZE_FROM:
            await target.execute(f"ANALYZE pg_temp.{self.noted}")
        for table, groups in self._counting.values():
            labels = frozenset(noted & {table.name, *groups})
            if labels and table.name not in put_off:
                await target.execute(self._counts(table, groups, labels))
        return leaving

    async def run_whole(self, target: asyncpg.Connection, name: str) -> None:
        """Count for every row of a table, as a whole, within the caller's transaction."""
        if name in self._counting:
            await target.execute(_of_all(self._map, *self._counting[name]))

    async def run_page(
        self, target: asyncpg.Connection, name: str, *, after: str | None, rows: int
    ) -> str | None:
        """Count for the next `rows` of a table, in the order of their ids, within the caller's transaction.

        `after` is the last id of the page before, None for the first one. Return that of this page, None
        after the last one.
        """
        if name not in self._counting:
            return None
        table, groups = self._counting[name]
        upto: str | None = await target.fetchval(_page_end(table), after, rows)
        await target.execute(_of_all(self._map, table, groups, paged=True), after, upto)
        return upto

    def _counts(self, table: TableMap, groups: Mapping[str, list[Stat]], labels: frozenset[str]) -> str:
        # One statement writes all counts of a row, so that it is written once.
        shape = (table.name, labels)
        if shape not in self._statements:
            self._statements[shape] = _statement(
                self._map, table, groups, labels, noted=self.noted, as_text=self._noted_as_text
            )
        return self._statements[shape]


def _groups(table: TableMap, stats: Stats) -> dict[str, list[Stat]]:
    """Group the counts that are computed together, by the label under which rows are noted."""
    groups: dict[str, list[Stat]] = {}
    for stat in stats.columns:
        groups.setdefault(stats_label(table, stat), []).append(stat)
    return groups


class _Counted:
    """What of a table's counts is the same in every statement that makes them."""

    def __init__(
        self,
        schema_map: SchemaMap,
        table: TableMap,
        stats: Iterable[Stat],
        *,
        rows_by: Callable[[str, Sequence[str]], str],
        id_: str,
    ) -> None:
        by: dict[tuple[str, tuple[str, ...]], list[Stat]] = {}
        for stat in stats:
            by.setdefault((stat.counted, stat.by), []).append(stat)
        counted = list(by.values())
        names = [quoted(stat.column) for group in counted for stat in group]
        place, owner = table.stats_place
        self.numbers = "".join(
            sql(
                "stats_numbers",
                number=str(number),
                values=commas([f"{stat.value} AS {quoted(stat.column)}" for stat in group]),
                rows=rows_by(counted_rows(schema_map, group[0].counted), group[0].by),
                table=quoted(group[0].counted),
            )
            for number, group in enumerate(counted)
        )
        self.written = {
            "stats": quoted(place),
            "owner": quoted(owner),
            "written": commas(names),
            "current": commas([f"t.{name}" for name in names]),
            "proposed": commas([f"f.{name}" for name in names]),
        }
        found = [
            f"CASE WHEN n{number}.sync_touched_id IS NULL THEN none{number}.{name} ELSE n{number}.{name} END"
            f" AS {name}"
            for number, group in enumerate(counted)
            for name in (quoted(stat.column) for stat in group)
        ]
        self.parts = {
            "columns": commas([quoted(owner), *names]),
            "found": commas([f"{id_} AS {quoted(owner)}", *found]),
            "joins": "".join(
                f" LEFT JOIN n{number} ON n{number}.sync_touched_id = {id_} CROSS JOIN none{number}"
                for number in range(len(counted))
            ),
            "updated": sql("stats_updated", **self.written) if names else "",
            **self.written,
        }


def _statement(
    schema_map: SchemaMap,
    table: TableMap,
    groups: Mapping[str, list[Stat]],
    labels: frozenset[str],
    *,
    noted: str,
    as_text: bool,
) -> str:
    """Return the statement that creates missing stats rows and updates the noted counts."""
    stats = (stat for label, group in groups.items() if label in labels for stat in group)
    counted = _Counted(schema_map, table, stats, rows_by=_counted_rows, id_="u.id")
    return sql(
        "counters" if table.counters else "stats",
        noted=noted,
        labels=commas([f"'{literal(label)}'" for label in sorted(labels)]),
        numbers=counted.numbers,
        target=quoted(table.name),
        id=column_name(table.id_column),
        touched=f"u.id::{table.id_type.native} AS id" if as_text else "u.id",
        **counted.parts,
    )


def _of_all(
    schema_map: SchemaMap, table: TableMap, groups: Mapping[str, list[Stat]], *, paged: bool = False
) -> str:
    """Return the statement for the counts of all rows, or of those with the ids of a page."""
    id_ = f"o.{column_name(table.id_column)}"

    def rows_by(counted: str, by: Sequence[str]) -> str:
        return _all_rows(counted, by, within=partial(_in_page, table) if paged else None)

    # A column that refers by text may have an order of its own: only equality is the same on both sides.
    by_look_up = paged and table.id_type.kind is Kind.TEXT
    stats = (stat for group in groups.values() for stat in group)
    counted = _Counted(schema_map, table, stats, rows_by=_counted_rows if by_look_up else rows_by, id_=id_)
    page = sql("page_ids", target=ours(table), id=id_, within=_in_page(table, id_)) if by_look_up else ""
    return sql(
        "counters_whole" if table.counters else "stats_whole",
        numbers=page + counted.numbers.removeprefix(", ") + ("," if counted.numbers else ""),
        target=ours(table),
        within=f" WHERE {_in_page(table, id_)}" if paged else "",
        **counted.parts,
    )


def _in_page(table: TableMap, id_: str) -> str:
    bounds = {"after": cast(table.id_type, "$1::text"), "upto": cast(table.id_type, "$2::text")}
    return sql("in_page", id=id_, **bounds).strip()


def _page_end(table: TableMap) -> str:
    id_ = column_name(table.id_column)
    return sql(
        "page_end",
        target=ours(table),
        id=id_,
        after=cast(table.id_type, "$1::text"),
        last=form(table.id_type, "p.id"),
    )


def _all_rows(counted: str, by: Sequence[str], *, within: Callable[[str], str] | None = None) -> str:
    """Return the query for all rows `counted`, or those `within` it, once per row that they refer to."""
    return " UNION ALL ".join(
        " AND ".join(
            [
                (
                    f"SELECT c.{quoted(column)} AS sync_touched_id, c.* FROM {counted} c"
                    f" WHERE c.{quoted(column)} IS NOT NULL"
                ),
                *([] if within is None else [within(f"c.{quoted(column)}")]),
                *(f"c.{quoted(before)} IS DISTINCT FROM c.{quoted(column)}" for before in by[:index]),
            ]
        )
        for index, column in enumerate(by)
    )


def _counted_rows(counted: str, by: Sequence[str]) -> str:
    """Return the query for the rows `counted` that refer to a touched row, once per pair."""
    return " UNION ALL ".join(
        " AND ".join(
            [
                (
                    "SELECT u.id AS sync_touched_id, c.* FROM touched u"
                    f" JOIN {counted} c ON c.{quoted(column)} = u.id"
                ),
                *(f"c.{quoted(before)} IS DISTINCT FROM u.id" for before in by[:index]),
            ]
        )
        for index, column in enumerate(by)
    )
