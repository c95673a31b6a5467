"""Denormalised numbers: which rows a statement may have changed them for, and counting those again."""

from collections.abc import Iterable, Iterator, Sequence

import asyncpg

from syncline.engine.layout import commas
from syncline.engine.tablemap import SchemaMap, Stat, Stats, TableMap
from syncline.engine.template import sql
from syncline.sqltext import literal, quoted

__all__ = ["Recount", "counting_columns", "new_lines", "touched"]

_ANALYZE_FROM = 2_000
"""From so many touched rows on it matters that the planner knows how many there are."""


def counting_columns(schema_map: SchemaMap, counted: str) -> list[str]:
    """Return the columns of a target or link table by which its rows are counted, each once."""
    return list(dict.fromkeys(column for _, column in _counters(schema_map, counted)))


def touched(schema_map: SchemaMap, counted: str, rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return the part of a statement that notes whose numbers change, or nothing if nobody counts `counted`.

    `rows` are FROM items whose row is `c`, each with the columns that it has of `counted`.
    """
    selects = [
        f"SELECT '{literal(label)}', c.{quoted(column)} FROM {item} WHERE c.{quoted(column)} IS NOT NULL"
        for item, columns in rows
        for label, column in _counters(schema_map, counted)
        if column in columns
    ]
    return _noted("touched", selects)


def new_lines(table: TableMap) -> str:
    """Return the part of a merge that notes the rows which need a line of numbers."""
    return _noted("lines", [f"SELECT '{literal(table.name)}', c.id FROM changed c"] if table.stats else [])


def _noted(name: str, selects: list[str]) -> str:
    if not selects:
        return ""
    return f", {name} AS (INSERT INTO pg_temp.sync_touched (counted, id) {' UNION ALL '.join(selects)})"


def _counters(schema_map: SchemaMap, counted: str) -> Iterator[tuple[str, str]]:
    for table in schema_map:
        for stat in table.stats.columns if table.stats else ():
            if stat.counted == counted:
                for column in stat.by:
                    yield _label(table, stat), column


def _label(table: TableMap, stat: Stat) -> str:
    return f"{table.name}/{stat.counted}"


class Recount:
    """The statements that bring the numbers of the noted rows up to date."""

    def __init__(self, schema_map: SchemaMap) -> None:
        self.create = sql("touched_create")
        self._statements: list[tuple[str, str]] = []
        for table in schema_map:
            if table.stats is not None:
                self._statements.extend(_statements(table, table.stats))

    async def run(self, target: asyncpg.Connection) -> None:
        """Count again for every row that the transaction has noted."""
        if not self._statements:
            return
        rows = await target.fetch("SELECT counted, count(*) AS touched FROM pg_temp.sync_touched GROUP BY 1")
        labels = {row["counted"] for row in rows}
        if sum(row["touched"] for row in rows) >= _ANALYZE_FROM:
            await target.execute("ANALYZE pg_temp.sync_touched")
        for label, statement in self._statements:
            if label in labels:
                await target.execute(statement)


def _statements(table: TableMap, stats: Stats) -> Iterator[tuple[str, str]]:
    groups: dict[tuple[str, tuple[str, ...]], list[Stat]] = {}
    for stat in stats.columns:
        groups.setdefault((stat.counted, stat.by), []).append(stat)
    for (counted, by), group in groups.items():
        names = [quoted(stat.column) for stat in group]
        yield (
            _label(table, group[0]),
            sql(
                "stats",
                stats=quoted(stats.table),
                owner=quoted(stats.owner),
                columns=commas(names),
                counted=literal(_label(table, group[0])),
                counted_table=quoted(counted),
                target=quoted(table.name),
                values=commas([f"{stat.value} AS {quoted(stat.column)}" for stat in group]),
                rows=_counted_rows(counted, by),
                found=commas(
                    [
                        f"CASE WHEN n.sync_touched_id IS NULL THEN none.{name} ELSE n.{name} END"
                        for name in names
                    ]
                ),
                assignments=commas([f"{name} = excluded.{name}" for name in names]),
                current=commas([f"t.{name}" for name in names]),
                proposed=commas([f"excluded.{name}" for name in names]),
            ),
        )
    yield (
        table.name,
        sql("stats_lines", stats=quoted(stats.table), owner=quoted(stats.owner), lines=literal(table.name)),
    )


def _counted_rows(counted: str, by: Sequence[str]) -> str:
    """Return the query for the rows of `counted` that refer to a touched row, each once for each."""
    return " UNION ALL ".join(
        " AND ".join(
            [
                (
                    "SELECT u.id AS sync_touched_id, c.* FROM touched u"
                    f" JOIN {quoted(counted)} c ON c.{quoted(column)} = u.id"
                ),
                *(f"c.{quoted(before)} IS DISTINCT FROM u.id" for before in by[:index]),
            ]
        )
        for index, column in enumerate(by)
    )
