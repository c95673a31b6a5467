"""Vectors: compares a graph-db table with its collection in the vector store."""

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg
from pydantic import JsonValue
from pydantic_core import from_json

from syncline.engine.render.fragments import commas
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import live
from syncline.engine.render.points import PointNames
from syncline.engine.table_map import SchemaMap, TableMap, VectorProjection
from syncline.engine.vectors.outbox import fields_sql, payload_sql
from syncline.errors import VectorStoreRejected
from syncline.messages.verification import Verdict
from syncline.provider import GraphSchema, GraphVectors
from syncline.sql import quoted, statements_of
from syncline.stores.vectors import PointPayload, VectorStore
from syncline.verify.rows import pairs
from syncline.verify.snapshots import Opening, open_side, open_snapshot
from syncline.verify.tally import Tally

__all__ = ["compare_vectors", "points_in_order", "same_json"]

_sql = statements_of("syncline.verify")

_AT_ONCE = 1000
_DOUBTFUL = 100_000


@dataclass(frozen=True)
class _Suspect:
    """A point that looks damaged, but may just have been written by a cycle."""

    id: UUID
    key: tuple[str, ...]
    verdict: Verdict
    version: str | None
    """The row's version when the comparison began."""


async def compare_vectors(
    target: GraphSchema,
    vectors: GraphVectors,
    schema_map: SchemaMap,
    table: TableMap,
    vector: VectorProjection,
    tally: Tally,
    *,
    embedding: str,
    entries: str | None = None,
    opening: Opening | None = None,
) -> None:
    """Compare all points of a collection with their rows; note differences in `tally`.

    `entries`: how the bookkeeping tables name it, if that is not the map's name of it.

    The vector store has no snapshots: an apparent damage counts if neither the row nor its outbox entry has
    changed since the comparison began, so that no cycle can have touched the point meanwhile.
    """
    compared = _Comparison(target, vectors, schema_map, table, vector, tally, embedding, opening)
    compared.entries = entries or vector.collection
    await compared.run()


class _Comparison:
    def __init__(
        self,
        target: GraphSchema,
        vectors: GraphVectors,
        schema_map: SchemaMap,
        table: TableMap,
        vector: VectorProjection,
        tally: Tally,
        embedding: str,
        opening: Opening | None,
    ) -> None:
        own = Identity(schema_map, table)
        self._opening, self._tables = opening, [table.name]
        self._target, self._tally, self._embedding = target, tally, embedding
        self._store = vectors.store
        self._full_name = vectors.collection(vector.collection)
        self.entries = vector.collection
        text, points = f"({vector.text})", PointNames(table)
        rows = live(schema_map, table) or own.ours
        self._rows = _sql(
            "points",
            payload=payload_sql(text, fields_sql(vector, points.fields)),
            text=text,
            target=rows,
            id=own.column,
            point=points.of("t"),
            key=commas(own.parts("t")),
        )
        # Before a first sync no list has the rows, and none is anybody else's for a comparison.
        now = rows if opening is None else quoted(table.name)
        self._now = _sql("points_now", target=now, point=points.of("t"))
        self._suspects: list[_Suspect] = []
        self._doubtful: dict[UUID, _Suspect] = {}
        self._fence = 0

    async def run(self) -> None:
        async with open_snapshot(self._target, self._tables, self._opening) as graph_db:
            [state] = await graph_db.fetch(_sql("fence"))
            self._fence = state["fence"]
            rows = graph_db.stream(self._rows, self.entries, self._embedding)
            points = points_in_order(self._store, self._full_name, None)
            async for row, point in pairs(
                rows, points, left_id=lambda row: row["row_id"], right_id=lambda point: point.id
            ):
                await self._judge(row, point)
            await self._look_again()
        await self._resolve_doubts()

    async def _judge(self, row: asyncpg.Record | None, point: PointPayload | None) -> None:
        if row is None:
            if point is not None:
                await self._suspect(_Suspect(point.id, (str(point.id),), Verdict.EXTRA, None))
            return
        key = tuple(row["key"] or (str(row["row_id"]),))
        if row["owed"]:
            waits = Verdict.DELAYED if row["retried"] else Verdict.DEAD
            await self._tally.note(waits if row["refused"] else Verdict.PENDING, key, row["row_id"])
        elif row["payload"] is None:
            if point is not None:
                await self._suspect(_Suspect(point.id, key, Verdict.EXTRA, row["version"]))
        elif point is None:
            await self._suspect(_Suspect(row["row_id"], key, Verdict.MISSING, row["version"]))
        elif row["known"] and same_json(from_json(row["payload"]), dict(point.payload)):
            self._tally.same()
        else:
            await self._suspect(_Suspect(point.id, key, Verdict.STALE, row["version"]))

    async def _suspect(self, suspect: _Suspect) -> None:
        self._suspects.append(suspect)
        if len(self._suspects) >= _AT_ONCE:
            await self._look_again()

    async def _look_again(self) -> None:
        """Note suspects whose rows are unchanged and have no outbox entry."""
        suspects, self._suspects = self._suspects, []
        for suspect, now in await self._unmoved(suspects):
            if suspect.verdict is Verdict.EXTRA and now["fence"] != self._fence:
                # One cycle may have written the row and its point, and the next one removed both.
                if len(self._doubtful) < _DOUBTFUL:
                    self._doubtful[suspect.id] = suspect
                else:
                    await self._tally.note(Verdict.PENDING, suspect.key, suspect.id)
            else:
                await self._tally.note(suspect.verdict, suspect.key, suspect.id)

    async def _resolve_doubts(self) -> None:
        """Check again the points without a row, which a cycle may have deleted meanwhile."""
        if not self._doubtful:
            return
        points = points_in_order(self._store, self._full_name, ())
        again = [self._doubtful[point.id] async for point in points if point.id in self._doubtful]
        for start in range(0, len(again), _AT_ONCE):
            for suspect, _ in await self._unmoved(again[start : start + _AT_ONCE]):
                await self._tally.note(suspect.verdict, suspect.key, suspect.id)

    async def _unmoved(self, suspects: Sequence[_Suspect]) -> list[tuple[_Suspect, asyncpg.Record]]:
        """Return (suspect, current row) for suspects untouched by cycles; note the others."""
        if not suspects:
            return []
        async with open_side(self._target, snapshot=False) as side:
            rows = await side.fetch(self._now, self.entries, [suspect.id for suspect in suspects])
        now = {row["row_id"]: row for row in rows}
        unmoved = []
        for suspect in suspects:
            row = now[suspect.id]
            if suspect.version is None and row["version"] is not None and self._opening is not None:
                continue  # The point of a row that stays somebody else's.
            if row["owed"] or row["version"] != suspect.version:
                await self._tally.note(Verdict.PENDING, suspect.key, suspect.id)
            else:
                unmoved.append((suspect, row))
        return unmoved


async def points_in_order(
    store: VectorStore, collection: str, fields: Sequence[str] | None
) -> AsyncIterator[PointPayload]:
    """Yield all points by ascending id; raise VectorStoreRejected if the store orders them otherwise."""
    last: UUID | None = None
    async for page in store.scroll(collection, fields=fields):
        for point in page:
            if last is not None and point.id <= last:
                raise VectorStoreRejected(
                    store.name, f"the points of collection '{collection}' are not returned in id order."
                )
            last = point.id
            yield point


def same_json(one: JsonValue, other: JsonValue) -> bool:
    """Return whether two JSON values are equal; fractional numbers up to rounding of the last digit."""
    if one == other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and _all_same((one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and _all_same(zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-14)
    return False


def _all_same(pairs: Iterable[tuple[JsonValue, JsonValue]]) -> bool:
    return all(same_json(one, other) for one, other in pairs)
