"""Explain: read the state of one row in the write-db, the graph-db and the vector store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from syncline import names
from syncline.engine.key_forms import cast
from syncline.engine.keys import hex_of, is_text, key_text, key_uuid, presented, readings, row_uuid
from syncline.engine.render.fragments import column, differs_from_none
from syncline.engine.render.identity import Identity
from syncline.engine.render.kept import keeps, live
from syncline.engine.render.points import PointNames
from syncline.engine.render.statements import DELETES, Cursor, deleted_keys
from syncline.engine.render.tenants import bound_tenant, deleted_keys_of, source_rows
from syncline.engine.state import LOAD
from syncline.engine.table_map import SchemaMap, TableMap
from syncline.engine.vectors.generations import read_generations
from syncline.errors import VectorStoreError
from syncline.maps.key_types import KeyType, Kind, key_place
from syncline.masking import FROM_CODE
from syncline.operator.dead_letters import AuditEntry, DeadLetter
from syncline.operator.explanation import (
    Explanation,
    InGraphDb,
    InVectorStore,
    InWriteDb,
    ParkedSelf,
    Requeued,
    RowState,
    SyncedBy,
    Wait,
    state_of,
    verdict,
)
from syncline.operator.parked import ParkedPart
from syncline.operator.schema import find_row, key_form, naming_values, reading, reading_sources, sql
from syncline.provider import GraphSchema, GraphVectors
from syncline.sql import literal, quoted
from syncline.stores.horizon import HORIZON

__all__ = ["explain"]


async def explain(
    write: GraphSchema,
    target: GraphSchema,
    vectors: GraphVectors,
    schema_map: SchemaMap,
    *,
    table: str,
    key: Sequence[str],
    limit: int = 20,
) -> Explanation:
    """Return the explanation of one row; `table` is its name in the graph-db or in the write-db.

    Raise InputInvalid for a table that is not in the map and for a key that does not fit it. An unavailable
    vector store is reported in the explanation.
    """
    found = find_row(schema_map, table, key)
    for each in readings(key_form(found, key)):
        row = await _explain(write, target, vectors, schema_map, found, each, limit)
        if row.state is not RowState.UNKNOWN_KEY:
            break
    return row


async def _explain(
    write: GraphSchema,
    target: GraphSchema,
    vectors: GraphVectors,
    schema_map: SchemaMap,
    found: TableMap,
    key: Sequence[str],
    limit: int,
) -> Explanation:
    # The write-db first: a concurrent commit of a cycle only makes the graph-db newer than the source read.
    sources = [f"{quoted(write.schema)}.{quoted(found.source)}", deleted_keys(write.schema)]
    async with reading_sources(write, sources) as connection:
        source = await _read_source(connection, write.schema, schema_map, found, key)
    async with reading(target) as connection:
        row = await _read_target(connection, schema_map, found, key, source, limit)
        point = await _point_id(connection, schema_map, found, key)
        generations = await read_generations(connection)
        second = None
        if generations.second is not None:
            second = await _read_vector(connection, schema_map, found, key, second=True)
    if found.vector is not None and point is not None:
        main, name = vectors.of_generation(generations.main), found.vector.collection
        vector = row.vector and await _ask_vector_store(main, row.vector, name, point)
        if second is not None and generations.second is not None:
            others = vectors.of_generation(generations.second.generation)
            second = await _ask_vector_store(others, second, name, point)
        row = row.model_copy(update={"vector": vector})
    row = row.model_copy(update={"second": second})
    return row.model_copy(update={"state": state_of(row), "verdict": verdict(row)})


@dataclass(frozen=True, kw_only=True)
class _Source:
    """State of a row in the write-db."""

    horizon: int
    next_xid: int
    exists: bool
    belongs: bool
    version: int
    names: Sequence[str]
    """The row's key, and other values by which parked rows may reference it."""
    deleted: asyncpg.Record | None


async def _read_source(
    connection: asyncpg.Connection, schema: str, schema_map: SchemaMap, table: TableMap, key: Sequence[str]
) -> _Source:
    row = await connection.fetchrow(
        sql(
            "source_row",
            horizon=HORIZON,
            source=source_rows(table, schema),
            present=table.present,
            values=", ".join(quoted(table.texts[column]) for column in naming_values(schema_map, table)),
            same_key=" AND ".join(
                f"{quoted(column)} = {cast(type_, key_text(f'($1::text[])[{place}]'))}"
                for place, (column, type_) in enumerate(zip(table.key, table.key_types, strict=True), 1)
            ),
        ),
        hex_of(key),
    )
    parts = ", ".join(key_text(f"($2::text[])[{place}]") for place in range(1, len(key) + 1))
    tombstones = deleted_keys_of(bound_tenant(table), deleted_keys(schema), rows="source_table = $1")
    tombstone = sql("tombstone", tombstones=tombstones, key=parts)
    deleted = await connection.fetchrow(tombstone, table.source, hex_of(key))
    exists = row["version"] is not None
    named = [value for value in row["named"] or () if value is not None]
    return _Source(
        horizon=row["horizon"],
        next_xid=row["next_xid"],
        exists=exists,
        belongs=bool(row["belongs"]),
        version=row["version"] or 0,
        names=[*(key if table.identified else ()), *named],
        deleted=None if exists else deleted,
    )


async def _read_target(
    connection: asyncpg.Connection,
    schema_map: SchemaMap,
    table: TableMap,
    key: Sequence[str],
    source: _Source,
    limit: int,
) -> Explanation:
    name, row_id, key_shown = table.name, row_uuid(key), presented(key)
    row = None
    if is_text(key):
        there = source.exists and source.belongs
        row = await connection.fetchrow(
            sql("target_row", **_target(schema_map, table, there=there)), list(key)
        )
    graph = _in_graph_db(row, source)
    if row is not None and keeps(schema_map, table):
        kept = await connection.fetchrow(sql("kept_row"), name, row_id)
        if kept is not None:
            since = "stub_since" if kept["stub"] else "marked_since"
            graph = graph.model_copy(update={since: kept["since"]})
    cursors = {
        cursor["table_name"]: cursor
        for cursor in await connection.fetch(sql("cursors"), [name, f"{LOAD}{name}", DELETES])
    }
    state = await connection.fetchrow(sql("state_of_row"), name, row_id)
    waits = await connection.fetch(sql("waits_of_row"), name, row_id, limit)
    waiting = await connection.fetch(
        sql("waiting_for_row"), name, [key_uuid(value) for value in source.names]
    )
    letter = await connection.fetchrow(sql("dead_letter", from_code=literal(FROM_CODE)), name, [row_id])
    applied = None if graph.synced_by is None else graph.synced_by.taken_at
    discard = await connection.fetchrow(sql("discards_of_row"), name, list(key_shown), applied)
    return Explanation(
        table=name,
        key=key_shown,
        write=_in_write_db(table, source, key, cursors),
        graph=graph,
        parked=None if state["waits_for_key"] is None else ParkedSelf.model_validate(dict(state)),
        waits=tuple(Wait.model_validate(dict(wait)) for wait in waits),
        waits_in_all=waits[0]["in_all"] if waits else 0,
        waiting_for_it=tuple(ParkedPart.model_validate(dict(part)) for part in waiting),
        requeued=None if state["reason"] is None else Requeued.model_validate(dict(state)),
        dead_letter=None if letter is None else DeadLetter.model_validate(dict(letter)),
        discarded=None if discard is None else AuditEntry.model_validate(dict(discard)),
        vector=await _read_vector(connection, schema_map, table, key),
    )


def _target(schema_map: SchemaMap, table: TableMap, *, there: bool) -> dict[str, str]:
    """Return the fragments of the target row; `there`: the source row belongs in the target."""
    own = Identity(schema_map, table)
    parts = _parts("$1", len(table.key))
    if table.identified:
        same = [own.is_row_of("t", parts)]
    else:
        same = [
            f"t.{quoted(column)} = {own.key_part(name, part, safely=False)}"
            for name, column, part in zip(table.key, table.target_key, parts, strict=True)
        ]
    if table.into is not None and not there:
        same.append(differs_from_none(table))
    # An id that is no uuid is given as the row's key already.
    uuid = table.identified and table.id_type.kind is Kind.UUID
    return {
        "target": quoted(table.target),
        "id": f"t.{own.column}" if uuid else "NULL::uuid",
        "version": _stamp(own, "sync_version", "version"),
        "run": _stamp(own, "sync_run", "run"),
        "same_row": " AND ".join(same),
    }


def _stamp(own: Identity, column: str, listed: str) -> str:
    if own.table.beside:
        return own.listed(f"sync_row.{listed}", f"t.{own.column}")
    return f"t.{column}" if own.table.stamped else "NULL::bigint"


async def _point_id(
    connection: asyncpg.Connection, schema_map: SchemaMap, table: TableMap, key: Sequence[str]
) -> UUID | None:
    """Return the id of the row's point: of the row in the target, whether it is there or not."""
    if table.vector is None or not is_text(key):
        return None
    made = PointNames(table).of_id(Identity(schema_map, table).derived(_parts("$1", len(key))))
    found: UUID | None = await connection.fetchval(f"SELECT {made}", list(key))  # rendered
    return found


def _parts(key: str, count: int) -> list[str]:
    """Return the parts of a key that is a parameter."""
    return [f"({key}::text[])[{place}]" for place in range(1, count + 1)]


def _in_graph_db(row: asyncpg.Record | None, source: _Source) -> InGraphDb:
    if row is None:
        return InGraphDb()
    return InGraphDb(
        exists=True,
        id=row["id"],
        version=row["sync_version"],
        behind=source.exists and row["sync_version"] is not None and row["sync_version"] < source.version,
        synced_by=None if row["run_id"] is None else SyncedBy.model_validate(dict(row)),
    )


def _in_write_db(
    table: TableMap,
    source: _Source,
    key: Sequence[str],
    cursors: Mapping[str, asyncpg.Record],
) -> InWriteDb:
    if source.exists:
        pending = _beyond(cursors.get(table.name), source.version, list(key), table.key_types)
        load = cursors.get(f"{LOAD}{table.name}")
        loading = load is not None and source.version < load["below"]
        loading = loading and _beyond(load, source.version, list(key), table.key_types)
        pending |= loading
        return InWriteDb(
            exists=True,
            belongs=source.belongs,
            version=source.version,
            pending=pending,
            held_back=pending and source.version >= source.horizon,
            loading=loading,
            ahead=source.version >= source.next_xid,
        )
    gone = source.deleted
    if gone is None:
        return InWriteDb()
    pending = _beyond(cursors.get(DELETES), gone["version"], [str(gone["seq"])], [_SEQ])
    return InWriteDb(
        version=gone["version"],
        deleted_at=gone["deleted_at"],
        pending=pending,
        held_back=pending and gone["version"] >= source.horizon,
    )


_SEQ = KeyType("bigint", Kind.INTEGER)


def _beyond(
    cursor: asyncpg.Record | None, version: int, key: Sequence[str], types: Sequence[KeyType]
) -> bool:
    """Return whether a version at this position of its stream is beyond the cursor, in capture's order."""
    if cursor is None:
        return True
    if cursor["key"] is None:
        return version >= int(cursor["xid"])
    position = Cursor.of_stored(int(cursor["xid"]), cursor["key"])
    place, last = key_place(key, types), key_place(position.key or (), types)
    return (version, place) > (position.xid, last)


async def _read_vector(
    connection: asyncpg.Connection,
    schema_map: SchemaMap,
    table: TableMap,
    key: Sequence[str],
    *,
    second: bool = False,
) -> InVectorStore | None:
    vector = table.vector
    if vector is None:
        return None
    point = await _point_id(connection, schema_map, table, key)
    entries = names.second_collection(vector.collection) if second else vector.collection
    asked: list[object] = [entries, point or row_uuid(key)]
    same_row = f"t.{column(table.id_column)} = $2"
    if not PointNames(table).same:
        # Its row is found by its id, not by the hash of that.
        own, parts = Identity(schema_map, table), _parts("$3", len(key))
        same_row = "false" if point is None else own.is_row_of("t", parts)
        asked += [] if point is None else [list(key)]
    target = live(schema_map, table) or quoted(table.name)
    question = sql("vector_of_row", target=target, same_row=same_row, text=vector.text)
    row = await connection.fetchrow(question, *asked)
    return InVectorStore(collection=entries, **row)


async def _ask_vector_store(
    vectors: GraphVectors, vector: InVectorStore, name: str, point: UUID
) -> InVectorStore:
    try:
        found = await vectors.store.retrieve(vectors.collection(name), [point])
    except VectorStoreError as error:
        answer: dict[str, object] = {"problem": str(error)}
    else:
        answer = {"point": bool(found)}
    return vector.model_copy(update=answer)
