"""Stats: compares a table's stored counts with a recount of its rows."""

from collections.abc import Mapping
from uuid import UUID

import asyncpg

from syncline.engine.render.fragments import commas
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import counted_rows
from syncline.engine.table_map import SchemaMap, Stat, Stats, TableMap
from syncline.errors import StoreUnavailable
from syncline.messages.verification import Verdict
from syncline.provider import GraphSchema
from syncline.sql import quoted, statements_of
from syncline.verify.checksums import TargetType
from syncline.verify.repair import RelationRepair
from syncline.verify.snapshots import Side, open_side
from syncline.verify.tally import Tally

__all__ = ["KEPT_COUNTS", "Recounting", "compare_counts", "differs", "mend_counts", "take_graph"]

_sql = statements_of("syncline.verify")

_PATIENCE = "30s"
_TAKE = "SELECT pg_advisory_xact_lock(hashtextextended('syncline:' || current_schema(), 0))"
_LOCK_NOT_AVAILABLE = "55P03"
_TOLERANCES = {"double precision": "1e-9", "real": "1e-5"}
"""Sums of floating-point numbers depend on their order, which is not fixed."""


class Recounting:
    """The recount statements of one table."""

    def __init__(
        self, schema_map: SchemaMap, table: TableMap, stats: Stats, types: Mapping[str, TargetType]
    ) -> None:
        """Render for the column types of the stats table."""
        own = Identity(schema_map, table)
        stored, owner = table.stats_place
        groups: dict[tuple[str, tuple[str, ...]], list[Stat]] = {}
        for stat in stats.columns:
            groups.setdefault((stat.counted, stat.by), []).append(stat)
        self._expected: dict[str, str] = {}
        joins = []
        for place, ((counted, by), group) in enumerate(groups.items()):
            values = [f"{stat.value} AS v{column}" for column, stat in enumerate(group)]
            joins.append(
                _sql(
                    "stats_group",
                    values=commas(values),
                    rows=" UNION ALL ".join(_rows(counted_rows(schema_map, counted), by)),
                    counted=quoted(counted),
                    id=own.column,
                    group=f"g{place}",
                    nothing=f"e{place}",
                )
            )
            for column, stat in enumerate(group):
                some, none = f"g{place}.v{column}", f"e{place}.v{column}"
                self._expected[stat.column] = (
                    f"CASE WHEN g{place}.sync_owner IS NULL THEN {none} ELSE {some} END"
                )
        names = [quoted(name) for name in self._expected]
        self._fragments = {
            "owner": quoted(owner),
            "expected": _sql(
                "stats_expected",
                target=own.ours,
                stats=quoted(stored),
                owner=quoted(owner),
                id=own.column,
                groups=" ".join(joins),
            ),
            "differs": " OR ".join(
                differs(f"n.{quoted(name)}", value, types[name].type if name in types else None)
                for name, value in self._expected.items()
            ),
        }
        self._differing = _sql(
            "stats_differing",
            id=own.column,
            row_id=own.row_id("o"),
            key=f"ARRAY[{commas(own.parts('o'))}]",
            **self._fragments,
        )
        self._count = _sql("stats_count", target=own.ours)
        self._mend = _sql(
            "stats_mend_rows" if table.counters else "stats_mend",
            stats=quoted(stored),
            columns=commas(names),
            values=commas(list(self._expected.values())),
            named=commas([f"{value} AS {quoted(name)}" for name, value in self._expected.items()]),
            mended=commas([f"f.{name}" for name in names]),
            assignments=commas([f"{name} = excluded.{name}" for name in names]),
            id=own.column,
            **self._fragments,
        )

    async def compare(self, target: Side, tally: Tally) -> None:
        """Compare all counts; note the rows that differ."""
        [counted] = await target.fetch(self._count)
        differing = 0
        async for row in target.stream(self._differing):
            differing += 1
            verdict = Verdict.MISSING if row["missing"] else Verdict.STALE
            await tally.note(verdict, tuple(row["key"]), row["row_id"])
        tally.same(counted["count"] - differing)

    async def mend(self, target: GraphSchema, repair: RelationRepair) -> int:
        """Correct all counts that differ; return how many did.

        Raises StoreUnavailable if a cycle holds the graph for too long: it counts the same rows.
        """
        async with open_side(target, snapshot=False) as side:
            await take_graph(side, target, "so its counts were not corrected")
            [row] = await side.fetch(self._mend)
            return await repair.audit(side, row["count"])


async def take_graph(side: Side, target: GraphSchema, so: str) -> None:
    """Block cycles of the graph until the transaction ends; raise StoreUnavailable if one keeps running."""
    await side.fetch(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
    try:
        await side.connection.fetch(_TAKE)
    except asyncpg.LockNotAvailableError as error:
        raise StoreUnavailable(
            target.store.name,
            f"a cycle has held the graph for {_PATIENCE}, {so}.",
            sqlstate=_LOCK_NOT_AVAILABLE,
        ) from error


def _rows(counted: str, by: tuple[str, ...]) -> list[str]:
    """Return the queries for `counted` rows with each row they refer to, once per pair."""
    return [
        f"SELECT c.*, c.{quoted(column)} AS sync_owner FROM {counted} c WHERE "  # noqa: S608
        + " AND ".join(
            [
                f"c.{quoted(column)} IS NOT NULL",
                *(f"c.{quoted(before)} IS DISTINCT FROM c.{quoted(column)}" for before in by[:place]),
            ]
        )
        for place, column in enumerate(by)
    ]


def differs(actual: str, expected: str, kind: str | None) -> str:
    """Return the SQL condition that two values of a type differ."""
    unequal = f"{actual} IS DISTINCT FROM {expected}"
    tolerance = _TOLERANCES.get(kind or "")
    if tolerance is None:
        return unequal
    near = f"abs({actual} - {expected}) <= {tolerance} * (abs({actual}) + abs({expected}))"
    return f"({unequal} AND NOT coalesce({near}, false))"


KEPT_COUNTS = "sync_count"


async def compare_counts(target: GraphSchema, tally: Tally) -> None:
    """Compare all stored counts with the actual ones in one snapshot; note differences."""
    async with open_side(target, snapshot=True) as side:
        for row in await side.fetch(_sql("counts_found")):
            if row["same"]:
                tally.same()
                continue
            key = (row["counted"], row["name"], *(["refused"] if row["refused"] else []))
            await tally.note(Verdict.STALE, key, UUID(int=0))


async def mend_counts(target: GraphSchema, repair: RelationRepair) -> int:
    """Correct all stored counts that differ; return how many did.

    Raises StoreUnavailable if a cycle holds the graph for too long: it changes what is counted.
    """
    async with open_side(target, snapshot=False) as side:
        await take_graph(side, target, "so the counts of its bookkeeping tables were not corrected")
        await side.connection.execute(_sql("counts_lock"))
        [row] = await side.fetch(_sql("counts_mend", found=_sql("counts_found")))
        return await repair.audit(side, row["count"])
