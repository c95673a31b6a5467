"""Comparison: a graph's live result with its shadow's, set-wise, in one snapshot of the graph-db."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from uuid import UUID

from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine.key_forms import form
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import keeps, with_source, without_kept
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.schema_transaction import SCHEMA_PATH
from syncline.engine.table_map import SchemaMap, TableMap, VectorProjection
from syncline.errors import ShadowInvalid, StoreRejected, VectorStoreError
from syncline.maps.key_types import KeyType, Kind
from syncline.messages.verification import Relation, RelationKind, Verdict, Verification
from syncline.provider import GraphVectors
from syncline.shadow.lag import progress_of, undone
from syncline.sql import literal, quoted, statements_of
from syncline.stores.vectors import PointPayload
from syncline.verify.rows import pairs
from syncline.verify.snapshots import Side, open_side
from syncline.verify.stats import differs
from syncline.verify.tally import Heartbeater, Tally
from syncline.verify.vectors import points_in_order, same_json

__all__ = ["compare_with_shadow"]

_sql = statements_of("syncline.shadow")


async def compare_with_shadow(
    services: Services,
    graph: Graph,
    schema_map: SchemaMap,
    *,
    tables: Collection[str] | None = None,
    keys: int = 100,
    vectors: bool = True,
    beat: Heartbeater | None = None,
) -> Verification:
    """Compare a graph's stores with those of its shadow.

    Takes no locks. Reports up to `keys` keys of each verdict; compares `tables` of the map, all if None.
    Raises InputInvalid for an unknown table, ShadowInvalid if the shadow has not run.
    """
    started = time.monotonic()
    asked = schema_map.chosen(tables)
    work = _Comparison(services, graph, schema_map, keys=keys, beat=beat or (lambda _name, _seen: None))
    relations: list[Relation] = []
    async with open_side(work.live, snapshot=True) as side:
        await work.require(side)
        behind = await work.behind(side)
        fences = await work.fences(side)
        for table in asked:
            relations += [await work.rows(side, relation) for relation in _relations(table)]
    if vectors:
        relations += [await work.points(table, table.vector) for table in asked if table.vector is not None]
    async with open_side(work.live, snapshot=True) as side:
        for name, fence in (await work.fences(side)).items():
            if fence != fences[name]:
                behind.append(f"The {name} result changed while its points were compared.")
    return Verification(
        relations=tuple(relations), shadow=True, behind=tuple(behind), seconds=time.monotonic() - started
    )


@dataclass(frozen=True, kw_only=True)
class _Relation:
    """A table of both schemas. `keys`: key column -> the table it refers to, or the type of its values."""

    name: str
    kind: RelationKind
    table: str
    keys: tuple[tuple[str, str | KeyType], ...]
    only: frozenset[str] | None = None
    """The other columns that are compared; all if None."""


def _relations(table: TableMap) -> Iterator[_Relation]:
    if table.into is not None:
        return  # Its columns are compared with the rows that it writes into.
    parents = {reference.target_column: reference.parent for reference in table.filled}
    keys = [
        (column, table.name if table.identified else parents.get(column) or table.own_parts[column])
        for column in table.target_key
    ]
    yield _Relation(name=table.name, kind=RelationKind.ROWS, table=table.name, keys=tuple(keys))
    for links in table.links:
        pair = ((links.owner, table.name), (links.member, links.parent))
        # Further columns differ from the start, such as now(), and readers change them.
        only = frozenset([] if links.position is None else [links.position])
        yield _Relation(name=links.table, kind=RelationKind.LINKS, table=table.name, keys=pair, only=only)
    if table.stats is not None and not table.counters:
        name, column = table.stats_place
        owner = ((column, table.name),)
        yield _Relation(name=name, kind=RelationKind.STATS, table=table.name, keys=owner)


class _Comparison:
    """One comparison of one graph."""

    def __init__(
        self, services: Services, graph: Graph, schema_map: SchemaMap, *, keys: int, beat: Heartbeater
    ) -> None:
        self._graph, self._keys, self._beat = graph, keys, beat
        self._map, self._statements = schema_map, SchemaStatements(schema_map)
        self._write = services.write_schema(graph)
        self.live = services.target_schema(graph)
        self._shadow = services.target_schema(graph, shadow=True)
        self._vectors = [services.graph_vectors(graph), services.graph_vectors(graph, shadow=True)]

    async def require(self, side: Side) -> None:
        """Raise ShadowInvalid unless there is a shadow."""
        [found] = await side.fetch(_sql("scratch"), self._shadow.schema)
        if not found["made"]:
            raise ShadowInvalid(self._graph.slug, "it has not run yet, so there is nothing to compare")
        for place, schema in enumerate((self.live.schema, self._shadow.schema)):
            [model] = await side.fetch(_sql("model", schema=quoted(schema)))
            self._vectors[place] = self._vectors[place].of_generation(model["generation"])

    async def behind(self, side: Side) -> list[str]:
        """Return what each side has yet to do, in sentences."""
        told = []
        # What the live graph has read has to be there for what the shadow lacks of it to be seen.
        write = self._write.with_floor()
        for name, place in (("live", self.live), ("shadow", self._shadow)):
            await side.fetch(SCHEMA_PATH, place.schema)
            with side.store.errors_mapped():
                progress = await progress_of(side.connection, place, write, self._statements)
            write.store.floor.rise(progress.ledger.reached)
            told += [f"The {name} result {words}." for words in undone(progress)]
        return told

    async def fences(self, side: Side) -> dict[str, int]:
        """Return each side's fence number, which every writing run increments."""
        places = {"live": quoted(self.live.schema), "shadow": quoted(self._shadow.schema)}
        [row] = await side.fetch(_sql("fences", **places))
        return dict(row)

    async def rows(self, side: Side, relation: _Relation) -> Relation:
        """Compare one table of both sides."""
        tally = self._tally(relation.name, relation.kind, relation.table)
        places = {
            name: f"{quoted(place.schema)}.{quoted(relation.name)}"
            for name, place in (("live", self.live), ("shadow", self._shadow))
        }
        keys = dict(relation.keys)
        columns: dict[str, dict[str, str]] = {}
        for name, place in places.items():
            found = await side.fetch(_sql("columns"), place)
            if not found:
                return await tally.close(f"the {name} result has no such table")
            columns[name] = {
                row["name"]: row["type"]
                for row in found
                if row["name"] not in keys and (relation.only is None or row["name"] in relation.only)
            }
        both = dict(sorted(columns["live"].items() & columns["shadow"].items()))
        alone = sorted((columns["live"].keys() | columns["shadow"].keys()) - both.keys())
        try:
            differing = await self._differing(side, relation, places, both, tally)
        except StoreRejected as error:
            return await tally.close(f"{type(error).__name__}: {error}")
        problem = f"not the same column in both: {', '.join(alone)}; the others were" if alone else None
        closed = await tally.close(problem)
        return closed.model_copy(update={"columns": differing})

    async def _differing(
        self, side: Side, relation: _Relation, places: dict[str, str], both: dict[str, str], tally: Tally
    ) -> dict[str, int]:
        """Note the rows that differ; return column -> number of rows in which it does."""
        table = self._map[relation.table]
        # Marks are of the moment, and a shadow has those of its time, and what hangs on them.
        schemas = {"live": self.live.schema, "shadow": self._shadow.schema}
        if relation.kind is RelationKind.ROWS:
            if keeps(self._map, table):
                places = {
                    side: with_source(table, place, schema=schemas[side]) for side, place in places.items()
                }
        elif ends := list(self._kept_ends(relation)):
            places = {side: without_kept(place, ends, schema=schemas[side]) for side, place in places.items()}
        same_key = " AND ".join(f"l.{quoted(column)} = s.{quoted(column)}" for column, _ in relation.keys)
        tests = {name: _differs(name, kind) for name, kind in both.items()}
        [[pairs]] = await side.fetch(_sql("pairs", **places, same_key=same_key))
        query = _sql(
            "differing",
            **places,
            first=quoted(relation.keys[0][0]),
            row_id=self._row_id(*relation.keys[0]),
            same_key=same_key,
            key=", ".join(part for key in relation.keys for part in self._key_parts(*key)),
            columns=", ".join(f"CASE WHEN {test} THEN '{literal(name)}' END" for name, test in tests.items()),
            differs=" OR ".join(tests.values()) or "false",
        )
        counts: Counter[str] = Counter()
        async for row in side.stream(query):
            if row["missing"]:
                verdict = Verdict.MISSING
            elif row["extra"]:
                verdict = Verdict.EXTRA
            else:
                verdict = Verdict.STALE
                pairs -= 1
                counts.update(row["columns"])
            await tally.note(verdict, row["key"], row["row_id"])
        tally.same(pairs)
        return dict(counts)

    def _kept_ends(self, relation: _Relation) -> Iterator[tuple[TableMap, str]]:
        """Yield the columns of links, or of counts, that may hold ids of rows without a source row."""
        for column, parent in relation.keys:
            if isinstance(parent, str) and keeps(self._map, self._map[parent]):
                yield self._map[parent], column

    def _key_parts(self, column: str, parent: str | KeyType) -> Iterator[str]:
        """Yield the parts of the key of the row that a key column names."""
        value = f"coalesce(l.{quoted(column)}, s.{quoted(column)})"
        if isinstance(parent, KeyType):
            yield form(parent, value)
            return
        live, shadow = (
            Identity(self._map, self._map[parent], schema=place.schema) for place in (self.live, self._shadow)
        )
        for part in range(1, len(live.table.key) + 1):
            found = {"live": _key_part(live, value, part), "shadow": _key_part(shadow, value, part)}
            yield _sql("told_key", id=value, **found)

    def _row_id(self, column: str, parent: str | KeyType) -> str:
        """Return a uuid for a row, by which it is told apart from others."""
        value = f"coalesce(l.{quoted(column)}, s.{quoted(column)})"
        type_ = parent if isinstance(parent, KeyType) else self._map[parent].id_type
        return value if type_.kind is Kind.UUID else f"syncline.key_uuid({value}::text)"

    async def points(self, table: TableMap, vector: VectorProjection) -> Relation:
        """Compare one collection of both sides: ids and payloads, whose hash covers the text."""
        tally = self._tally(vector.collection, RelationKind.VECTORS, table.name)
        counts: Counter[str] = Counter()
        try:
            lives, shadows = (_read(each, vector.collection) for each in self._vectors)
            async for live, shadow in pairs(lives, shadows, left_id=_id, right_id=_id):
                counts += await _judge(live, shadow, tally)
        except VectorStoreError as error:
            return await tally.close(f"{type(error).__name__}: {error}")
        return (await tally.close()).model_copy(update={"columns": dict(counts)})

    def _tally(self, name: str, kind: RelationKind, table: str) -> Tally:
        return Tally(name, kind, table, keys=self._keys, beat=self._beat)


def _key_part(own: Identity, target_id: str, part: int) -> str:
    return own.key_of(target_id) if len(own.table.key) == 1 else f"({own.parts_of(target_id)})[{part}]"


async def _judge(live: PointPayload | None, shadow: PointPayload | None, tally: Tally) -> Counter[str]:
    """Note a point's verdict; return the fields that differ."""
    if live is None or shadow is None:
        found = live or shadow
        if found is not None:
            verdict = Verdict.EXTRA if live is None else Verdict.MISSING
            await tally.note(verdict, _key_of_point(found), found.id)
        return Counter()
    names = live.payload.keys() | shadow.payload.keys()
    fields = [
        name
        for name in names
        if not (name in live.payload and name in shadow.payload)
        or not same_json(live.payload[name], shadow.payload[name])
    ]
    if fields:
        await tally.note(Verdict.STALE, _key_of_point(live), live.id)
    else:
        tally.same()
    return Counter(fields)


def _key_of_point(point: PointPayload) -> tuple[str]:
    return (str(point.payload.get("key", point.id)),)


def _id(point: PointPayload) -> UUID:
    return point.id


def _read(vectors: GraphVectors, collection: str) -> AsyncIterator[PointPayload]:
    return points_in_order(vectors.store, vectors.collection(collection), None)


def _differs(name: str, kind: str) -> str:
    live, shadow = f"l.{quoted(name)}", f"s.{quoted(name)}"
    if kind in ("json", "xml"):  # types without an equality operator
        live, shadow = f"{live}::text", f"{shadow}::text"
    return f"({differs(live, shadow, kind)})"
