"""Verification: compares all relations of a graph, one after the other."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from syncline import names
from syncline.control.audit import Actor
from syncline.engine.owed import COUNTS, read_owed
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.table_map import SchemaMap, Stats, TableMap, VectorProjection
from syncline.errors import StoreRejected, StoreUnavailable, SynclineError, VectorStoreError
from syncline.messages.sync import Owed
from syncline.messages.verification import Relation, RelationKind, Verification
from syncline.provider import GraphSchema, GraphVectors
from syncline.run_text import owed_sentences
from syncline.sql import quoted, statements_of
from syncline.verify.checksums import RowChecksums, TargetType, staged_types
from syncline.verify.in_flight import find_refused
from syncline.verify.links import compare_links
from syncline.verify.repair import RelationRepair, Repair
from syncline.verify.rows import compare_rows
from syncline.verify.snapshots import Opening, Side, Snapshots, open_snapshot, open_snapshots
from syncline.verify.stats import KEPT_COUNTS, Recounting, compare_counts, mend_counts
from syncline.verify.tally import Heartbeater, Mend, Tally
from syncline.verify.vectors import compare_vectors

__all__ = ["Inspection", "SecondGraphVectors", "verify"]

_sql = statements_of("syncline.verify")


@dataclass(frozen=True, kw_only=True)
class SecondGraphVectors:
    """The second generation of a graph's collections, and the service of its vectors."""

    vectors: GraphVectors
    embedding: str


async def verify(
    schema_map: SchemaMap,
    *,
    write: GraphSchema,
    target: GraphSchema,
    vectors: GraphVectors | None,
    embedding: str,
    second: SecondGraphVectors | None = None,
    tables: Collection[str] | None = None,
    keys: int = 100,
    repair: bool = False,
    who: str = "",
    why: str = "",
    run_id: str | None = None,
    starter: str | None = None,
    beat: Heartbeater | None = None,
) -> Verification:
    """Compare a graph's stores with what they should contain; with `repair`, request corrections.

    Takes no locks; cycles and writers continue, and pending changes are not damage. Reports up to `keys` keys
    of each verdict. `embedding` names the service whose vectors are valid; a `second` generation is compared
    too, as relations of its own. `tables` of the map are compared, all if None; without `vectors` only the
    databases are compared; `beat` receives the progress. A repair requests exactly the damaged keys, and the
    next cycle corrects them; counts are corrected at once. The audit records actor `who` and reason `why`; a
    later attempt of run `run_id` continues an earlier one's record. A query that a store rejects is reported
    as a problem of that relation; the others are compared.
    Raises InputInvalid for an unknown table, or for a repair without actor or reason.
    """
    schema_map.chosen(tables)
    actor = Actor(who=who, why=why, run_id=run_id, starter=starter)
    mending = Repair(target, actor) if repair else None
    if mending is not None:
        await mending.recall()
    inspection = Inspection(
        schema_map,
        write=write,
        target=target,
        vectors=vectors,
        embedding=embedding,
        second=second,
        keys=keys,
        repair=mending,
        beat=beat,
    )
    return await inspection.run(tables)


class Inspection:
    """One verification of one graph; with `opening`, as before its first sync (syncline.verify.foreseen)."""

    def __init__(
        self,
        schema_map: SchemaMap,
        *,
        write: GraphSchema,
        target: GraphSchema,
        vectors: GraphVectors | None,
        embedding: str,
        second: SecondGraphVectors | None = None,
        keys: int,
        repair: Repair | None,
        beat: Heartbeater | None,
        opening: Opening | None = None,
    ) -> None:
        self._started = time.monotonic()
        self._map, self._opening = schema_map, opening
        self._statements = SchemaStatements(schema_map)
        self._write, self._target, self._vectors = write, target, vectors
        self._embedding, self._keys, self._repair = embedding, keys, repair
        self._second = second
        self._beat = beat or (lambda _name, _seen: None)
        self._rescan = False

    async def run(self, tables: Collection[str] | None = None) -> Verification:
        """Compare these tables; all, and the stored counts, if None."""
        relations: list[Relation] = []
        for table in self._map.chosen(tables):
            relations.extend(await self._relations(table))
        if tables is None:
            relations.extend(await self._counts())
        return Verification(
            relations=tuple(relations),
            owed=owed_sentences(await self._owed()),
            rescan=self._rescan,
            seconds=time.monotonic() - self._started,
        )

    async def _owed(self) -> Sequence[Owed]:
        """Return what a first load has put off; bookkeeping of an earlier release knows nothing of it."""
        schema = self._target.schema
        async with self._target.store.driver() as connection:
            if not await connection.fetchval(_sql("owed_there"), quoted(schema)):
                return ()
            return [each.reported for each in await read_owed(connection, schema)]

    async def _relations(self, table: TableMap) -> list[Relation]:
        """Compare everything that belongs to a table; return the results."""
        found: list[Relation] = []
        self._open = tally = self._rows_tally(table.name, RelationKind.ROWS, table)
        try:
            # Separate snapshots for each table: a long one stops Postgres from vacuuming behind writers.
            read = [table.name, *(links.rejected_by for links in table.links if links.rejected_by)]
            async with open_snapshots(
                self._write, self._target, self._statements, read, opening=self._opening
            ) as snapshots:
                self._rescan |= snapshots.rescan
                await self._both_sides(snapshots, table, tally, found)
            if (repair := self._repair_of(table.name, RelationKind.ROWS)) is not None:
                await repair.release(table.name)
            if table.stats is not None:
                await self._numbers(table, table.stats, found)
        except StoreRejected as error:
            found.append(await self._open.close(problem=_format_error(error)))
        if table.vector is not None and self._vectors is not None:
            name = table.vector.collection
            found.append(await self._points(self._vectors, self._embedding, name, table, table.vector))
            if self._second is not None:
                second, name = self._second, names.second_collection(name)
                found.append(await self._points(second.vectors, second.embedding, name, table, table.vector))
        return found

    async def _counts(self) -> list[Relation]:
        """Compare the stored counts of the bookkeeping tables; reported only if wrong."""
        repair = self._repair_of(KEPT_COUNTS, RelationKind.STATS)
        asked = 0 if repair is None else repair.asked
        tally = Tally(
            KEPT_COUNTS, RelationKind.STATS, KEPT_COUNTS, keys=self._keys, beat=self._beat, queued=asked
        )
        try:
            await compare_counts(self._target, tally)
        except StoreRejected as error:
            return [await tally.close(problem=_format_error(error))]
        relation = await tally.close()
        if repair is not None and relation.damaged:
            try:
                mended = await mend_counts(self._target, repair)
                relation = relation.model_copy(update={"queued": relation.queued + mended})
            except StoreUnavailable as error:
                relation = relation.model_copy(update={"problem": _format_error(error)})
        return [relation] if relation.damaged or relation.problem else []

    async def _both_sides(
        self, snapshots: Snapshots, table: TableMap, tally: Tally, found: list[Relation]
    ) -> None:
        types, builtin = await _types(snapshots.target, table.name), await _builtin(snapshots.write, table)
        images = RowChecksums(self._map, table, types, builtin)
        refused = await find_refused(snapshots, table)
        await compare_rows(snapshots, self._statements, images, refused, tally)
        found.append(await tally.close())
        for links in table.links:
            self._open = tally = self._rows_tally(links.table, RelationKind.LINKS, table)
            await compare_links(snapshots, self._statements, images, links, refused, tally)
            found.append(await tally.close())

    async def _numbers(self, table: TableMap, stats: Stats, found: list[Relation]) -> None:
        name, _ = table.stats_place
        if any(each.kind == COUNTS and each.name == table.name for each in await self._owed()):
            tally = self._tally(name, RelationKind.STATS, table, None, mend=None)
            found.append(await tally.close(problem="its rows are counted at the end of the first load."))
            return
        repair = self._repair_of(name, RelationKind.STATS)
        self._open = tally = self._tally(name, RelationKind.STATS, table, repair, mend=None)
        counted = [table.name, *(stat.counted for stat in stats.columns)]
        async with open_snapshot(self._target, counted, self._opening) as graph_db:
            recounting = Recounting(self._map, table, stats, await _types(graph_db, name))
            await recounting.compare(graph_db, tally)
        relation = await tally.close()
        if repair is not None and relation.damaged:
            try:
                mended = await recounting.mend(self._target, repair)
                relation = relation.model_copy(update={"queued": relation.queued + mended})
            except StoreUnavailable as error:
                relation = relation.model_copy(update={"problem": _format_error(error)})
        found.append(relation)

    async def _points(
        self,
        vectors: GraphVectors,
        embedding: str,
        collection: str,
        table: TableMap,
        vector: VectorProjection,
    ) -> Relation:
        repair = self._repair_of(collection, RelationKind.VECTORS)
        mend = None if repair is None else partial(repair.points, collection)
        tally = self._tally(collection, RelationKind.VECTORS, table, repair, mend=mend)
        try:
            await compare_vectors(
                self._target,
                vectors,
                self._map,
                table,
                vector,
                tally,
                embedding=embedding,
                entries=collection,
                opening=self._opening,
            )
        except VectorStoreError as error:
            # The databases can be compared without it.
            return await tally.close(problem=_format_error(error))
        return await tally.close()

    def _rows_tally(self, name: str, kind: RelationKind, table: TableMap) -> Tally:
        """Return the tally of a relation whose damage is repaired through the table's rows."""
        repair = self._repair_of(name, kind)
        mend = None if repair is None else partial(repair.rows, table.name)
        return self._tally(name, kind, table, repair, mend=mend)

    def _tally(
        self,
        name: str,
        kind: RelationKind,
        table: TableMap,
        repair: RelationRepair | None,
        *,
        mend: Mend | None,
    ) -> Tally:
        asked = 0 if repair is None else repair.asked
        return Tally(name, kind, table.name, keys=self._keys, beat=self._beat, mend=mend, queued=asked)

    def _repair_of(self, name: str, kind: RelationKind) -> RelationRepair | None:
        repair = self._repair
        return None if repair is None or kind not in repair.kinds else repair.of(name, kind)


def _format_error(error: SynclineError) -> str:
    return f"{type(error).__name__}: {error}"


async def _types(target: Side, table: str) -> dict[str, TargetType]:
    rows = await target.fetch(_sql("types"), table)
    return {row["name"]: TargetType(type=row["type"], builtin=row["builtin"]) for row in rows}


async def _builtin(write: Side, table: TableMap) -> frozenset[str]:
    return frozenset(row["spelled"] for row in await write.fetch(_sql("builtin"), staged_types(table)))
