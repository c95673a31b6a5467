"""Takeover: compares a target that somebody else filled with what a first sync would make of it.

The comparison is that of `verify`, with everything that the write-db has taken as read, and with the list of
rows that the first sync would make: nothing is pending, or somebody else's, because no cycle has run. Rows
under other ids than the map's are looked for before.
"""

from syncline.control.audit import Actor
from syncline.engine.map_changes import map_hash
from syncline.engine.render.fragments import commas
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import keeps
from syncline.engine.state import read_ledger
from syncline.engine.strangers import strange_condition, ways_to_leave
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.errors import TakeoverRefused
from syncline.messages.takeover import StrangeRows, Takeover
from syncline.provider import GraphSchema, GraphVectors
from syncline.sql import quoted, statements_of
from syncline.verify.foreseen import Foreseen
from syncline.verify.kept_vectors import keep_vectors
from syncline.verify.repair import Repair
from syncline.verify.snapshots import Side, open_side
from syncline.verify.standing_stubs import standing_stubs
from syncline.verify.tally import Heartbeater
from syncline.verify.verify import Inspection

__all__ = ["take_over"]

_sql = statements_of("syncline.verify")


async def take_over(
    schema_map: SchemaMap,
    *,
    graph: str,
    write: GraphSchema,
    target: GraphSchema,
    vectors: GraphVectors | None,
    embedding: str,
    keys: int,
    delete_extra: bool = False,
    keep: bool = False,
    actor: Actor | None = None,
    beat: Heartbeater | None = None,
) -> Takeover:
    """Compare a graph's stores as if every row had been read; for an `actor`, prepare the first sync.

    Without one nothing is written. With one extras are requested to be deleted, if `delete_extra`, and with
    `keep` the vectors that are there count as those of the texts that stand in the target; nothing of it if
    the result has refusals. Raises TakeoverRefused if cycles have applied the whole map already.
    """
    told = beat or (lambda _name, _seen: None)
    async with open_side(target, snapshot=True) as side:
        names = [table.name for table in schema_map]
        ledger = await read_ledger(side.connection, tables=names, run_id="")
        if ledger.map_hash == map_hash(schema_map):
            raise TakeoverRefused(graph)
        strange: list[StrangeRows] = []
        for table in schema_map:
            told(table.name, 0)
            rows = await _strange(side, schema_map, table, target.schema, keys)
            strange += [] if rows is None else [rows]
    foreseen = Foreseen(schema_map, write)
    if any(keeps(schema_map, table) for table in schema_map):
        async with open_side(target, snapshot=True) as side:
            foreseen.stubs = await standing_stubs(schema_map, write, side)
    unlisted: dict[str, int] = {}
    listed = [table for table in schema_map if table.listed and table.into is None]
    if listed:
        async with foreseen.open(target, [table.name for table in listed]) as side:
            for table in listed:
                told(table.name, 0)
                places = {"target": quoted(table.name), "ours": Identity(schema_map, table).is_ours("t")}
                [counted] = await side.fetch(_sql("unlisted_counted", **places))
                unlisted |= {table.name: counted["rows"]} if counted["rows"] else {}
    asking = None
    if actor is not None and delete_extra and not strange:
        asking = Repair(target, actor, verb="take over", extras_only=True)
        await asking.recall()
    inspection = Inspection(
        schema_map,
        write=write,
        target=target,
        vectors=vectors,
        embedding=embedding,
        keys=keys,
        repair=asking,
        beat=told,
        opening=foreseen.open,
    )
    verified = await inspection.run()
    found = Takeover(
        graph=graph,
        dry_run=actor is None,
        found=verified,
        strange=tuple(strange),
        unlisted=unlisted,
        stubs=foreseen.stubs.counts,
        delete_extra=delete_extra,
        asked=verified.queued,
    )
    if actor is not None and not found.refusals and found.stubs:
        async with open_side(target, snapshot=False) as side:
            await foreseen.stubs.enter(side)
    if keep and actor is not None and vectors is not None and not found.refusals:
        kept = await keep_vectors(schema_map, target, vectors, embedding=embedding, beat=told)
        found = found.model_copy(update={"kept_vectors": kept})
    return found


async def _strange(
    side: Side, schema_map: SchemaMap, table: TableMap, schema: str, keys: int
) -> StrangeRows | None:
    """Return a table's rows under other ids than the map's, and those whose key cannot be read."""
    if table.listed or table.into is not None:
        # A row that is not listed is somebody else's, whatever its id; with `into` the rows are another's.
        return None
    own = Identity(schema_map, table)
    parts, of_listed = own.parts("t"), own.of_listed("t")
    unreadable = " OR ".join(f"({part}) IS NULL" for part in parts)
    if of_listed:
        unreadable = f"({unreadable}) AND {' AND '.join(of_listed)}"
    condition = strange_condition(schema_map, table.name, schema=schema)
    strange = unreadable if condition is None else f"{condition} OR {unreadable}"
    places = {"target": quoted(table.target), "strange": strange}
    [counts] = await side.fetch(_sql("strange_counted", unreadable=unreadable, **places))
    if not counts["rows"]:
        return None
    columns = [own.column] if table.identified else [quoted(name) for name in table.target_key]
    ids = commas([f"t.{name}::text" for name in columns])
    rows = await side.fetch(_sql("strange_listed", ids=ids, key=commas(parts), **places), keys)
    way_out = ""
    if condition is not None:
        leaving = await ways_to_leave(side.connection, table.name, condition, schema=schema)
        way_out = (
            f"Let tables.{table.name}.id of the map say how their ids were made, or delete them: {leaving}"
        )
    return StrangeRows(
        table=table.name,
        count=counts["rows"],
        unreadable=counts["unreadable"],
        keys=tuple(() if None in row["key"] else tuple(row["key"]) for row in rows),
        ids=tuple(" ".join(row["ids"]) for row in rows),
        way_out=way_out,
    )
