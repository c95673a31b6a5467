"""Deletion of a graph: what goes and what stays, listed; then done step by step, the record last.

Each step looks at what is there, so that a deletion that was interrupted is finished by another one.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from syncline.capture.install.install import plan_undo, undo
from syncline.control.audit import Actor
from syncline.control.graphs import Graph
from syncline.control.maps import map_options
from syncline.control.services import Services
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.owed import acting_as
from syncline.errors import InputInvalid
from syncline.messages.base import GraphStatus
from syncline.messages.operator import DeletedPart, GraphDeleted
from syncline.migrations import ENGINE_VERSION_TABLE, VERSION_TABLE
from syncline.operator.maps import GraphMap
from syncline.operator.schema import sql
from syncline.operator.second_model import main_vectors
from syncline.provider import GraphSchema
from syncline.shadow.prepare import drop_shadow
from syncline.sql import quoted

__all__ = ["STEPS", "delete_graph"]

STEPS: Final = ("audit", "schedule", "capture", "shadow", "collections", "tables", "record")
"""The steps, in their order."""

_BOOKKEEPING: Final = (
    "sync_absent", "sync_audit", "sync_checkpoint", "sync_comparison", "sync_count", "sync_cursor",
    "sync_dead_letter", "sync_kept", "sync_link", "sync_made", "sync_mapped", "sync_outbox", "sync_owed",
    "sync_parked_reference", "sync_parked_row", "sync_range", "sync_recent", "sync_requeue", "sync_row",
    "sync_run", "sync_second", "sync_source", "sync_state", "sync_vector", "sync_vector_delay",
    "sync_vector_embedding", "sync_visible",
    ENGINE_VERSION_TABLE, VERSION_TABLE,
)  # fmt: skip
"""The engine's tables in a graph-db. No pattern: others may have tables whose names begin alike."""
_SEQUENCES: Final = ("sync_look", "sync_wanted")
_FUNCTIONS: Final = ("sync_keep_counts", "sync_keep_second")
_ALL_OF: Final = "public"
"""A schema that was there before the graph."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    tables: tuple[str, ...]
    collections: tuple[str, ...]
    capture: bool
    shadow: bool
    parts: tuple[DeletedPart, ...]
    blockers: tuple[str, ...]


async def delete_graph(
    services: Services,
    graph: Graph,
    known: GraphMap,
    *,
    keep_data: bool,
    actor: Actor | None,
    remove_schedule: Callable[[], Awaitable[object]],
    on_step: Callable[[str], object] = lambda _: None,
) -> GraphDeleted:
    """Delete a graph, and return what goes and what stays; without an actor only that.

    Raise InputInvalid, before anything is changed, for a graph that is not archived, that a cycle holds, or
    on whose tables something of others depends. What `keep_data` keeps, tables of a stored map, and sources
    stay as they are.
    """
    plan = await _plan(services, graph, known, keep_data=keep_data)
    answer = GraphDeleted(graph=graph.slug, parts=plan.parts, blockers=plan.blockers)
    if actor is None:
        return answer
    _refuse(graph, plan)
    on_step("audit")
    fields = [f"{part.kind} {part.name}" for part in plan.parts if not part.stays]
    await services.graphs.audit(graph, "delete", actor, fields=fields)
    on_step("schedule")
    await remove_schedule()
    on_step("capture")
    write = services.write_schema(graph)
    if plan.capture:
        await undo(write.store, write.schema, known.schema_map)
    on_step("shadow")
    if plan.shadow:
        await drop_shadow(services, graph, known.schema_map)
    on_step("collections")
    # Before the tables, which say what generation they are of.
    vectors = services.vector_store(graph.qdrant_store)
    for collection in plan.collections:
        await vectors.drop_collection(collection)
    on_step("tables")
    await _drop_tables(services.target_schema(graph), graph, plan.tables)
    on_step("record")
    await services.graphs.delete(graph)
    return answer.model_copy(update={"deleted": True})


def _refuse(graph: Graph, plan: _Plan) -> None:
    if graph.status is not GraphStatus.ARCHIVED:
        raise InputInvalid(
            f"Graph '{graph.slug}' is {graph.status}; only an archived graph is deleted.",
            fix=f"Run `syncline graph archive {graph.slug}` first, or answer `--yes` to both.",
        )
    if plan.blockers:
        raise InputInvalid(
            f"Graph '{graph.slug}' was not deleted: {'; '.join(plan.blockers)}.",
            fix="Mend that first; what depends on tables that readers query is left by `--keep-data`.",
        )


async def _plan(services: Services, graph: Graph, known: GraphMap, *, keep_data: bool) -> _Plan:
    parts = [DeletedPart(kind="Schedule", name=f"sync-graph/{graph.slug}")]
    write, target = services.write_schema(graph), services.target_schema(graph)
    serving = [
        other.slug
        for other in await services.graphs.sharing(graph)
        if other.status is not GraphStatus.ARCHIVED
    ]
    async with write.store.driver() as connection:
        steps = () if serving else (await plan_undo(connection, write.schema, known.schema_map)).steps
    place = f"write-db {write.store.name}"
    if serving:
        detail = f"serves {', '.join(serving[:10])} too"
        parts.append(DeletedPart(kind="capture", name=write.schema, place=place, detail=detail, stays=True))
    parts += [DeletedPart(kind="capture", name=step.sentence, place=place) for step in steps]
    parts.append(DeletedPart(kind="sources", name=write.schema, place=place, stays=True))
    own = map_options(graph.composition).map is None
    readers = tuple(KNOWLEDGE_GRAPH.filled) if own else ()
    mapped = [name for name in known.schema_map.filled if name not in readers]
    shadow = services.target_schema(graph, shadow=True)
    place = f"graph-db {target.store.name}"
    async with target.store.driver() as connection:
        there = await connection.fetch(
            sql("deletion_tables"), target.schema, [*_BOOKKEEPING, *readers, *mapped]
        )
        found = {row["name"]: row["rows"] for row in there}
        # With the version, a graph that is added again finds the tables that were kept.
        kept = (VERSION_TABLE, *readers) if keep_data else ()
        going = [name for name in found if name in (*_BOOKKEEPING, *readers) and name not in kept]
        dependents = await connection.fetch(sql("deletion_dependents"), target.schema, going)
        foreign = await connection.fetchrow(
            sql("deletion_of_others"), target.schema, going, target.store.owner_role
        )
        shadowed = bool(await connection.fetch(sql("deletion_tables"), shadow.schema, ["sync_state"]))
    for name, rows in found.items():
        stays = name not in going
        parts.append(
            DeletedPart(
                kind="state" if name in _BOOKKEEPING else "table",
                name=f"{target.schema}.{name}",
                place=place,
                detail="" if name in _BOOKKEEPING else f"about {rows:,} rows",
                stays=stays,
            )
        )
    if shadowed:
        parts.append(DeletedPart(kind="shadow", name=shadow.schema, place=place))
    collections = await _collections(services, graph, known, parts, keep_data=keep_data)
    if known.unknown is not None:
        parts.append(DeletedPart(kind="provider's own", name=known.unknown, stays=True))
    parts.append(DeletedPart(kind="record", name=graph.slug, place=f"control plane {services.control.name}"))
    return _Plan(
        tables=tuple(going),
        collections=collections,
        capture=bool(steps),
        shadow=shadowed,
        parts=tuple(parts),
        blockers=(
            *(f"{row['dependent']} depends on its tables" for row in dependents),
            *(
                f"table {target.schema}.{row['name']} is role '{row['owner']}'s, which the workers' role is "
                "not: set SYNCLINE_OWNER_ROLE on the workers"
                for row in ([] if foreign is None else [foreign])
            ),
        ),
    )


async def _collections(
    services: Services, graph: Graph, known: GraphMap, parts: list[DeletedPart], *, keep_data: bool
) -> tuple[str, ...]:
    """Return the collections that go, of each generation, and list all."""
    vectors, generations = await main_vectors(services, graph)
    of = [vectors]
    if generations.second is not None:
        of.append(vectors.of_generation(generations.second.generation))
    tables = [table.vector.collection for table in known.schema_map if table.vector is not None]
    named = [each.collection(table) for each in of for table in tables]
    points = [await vectors.store.count(name) for name in named]
    place = f"vector store {vectors.store.name}"
    parts += [
        DeletedPart(kind="collection", name=name, place=place, detail=f"{count:,} points", stays=keep_data)
        for name, count in zip(named, points, strict=True)
    ]
    return () if keep_data else tuple(named)


async def _drop_tables(target: GraphSchema, graph: Graph, tables: Sequence[str]) -> None:
    """Drop the tables and their functions in one transaction, and the schema if nothing is left in it."""
    schema = quoted(target.schema)
    async with target.store.driver() as connection, connection.transaction():
        if not await connection.fetchval(sql("deletion_lock"), target.schema):
            raise InputInvalid(
                f"A cycle holds graph '{graph.slug}', so its tables were not dropped.",
                fix=f"Wait for its run, or end it; then run `syncline graph delete {graph.slug}` again.",
            )
        for statement in (*acting_as(target.store), "SET LOCAL lock_timeout = '30s'"):
            await connection.execute(statement)
        if tables:
            listed = ", ".join(f"{schema}.{quoted(name)}" for name in tables)
            await connection.execute(f"DROP TABLE {listed}")
        for name in _SEQUENCES:
            await connection.execute(f"DROP SEQUENCE IF EXISTS {schema}.{quoted(name)}")
        for function in await connection.fetch(sql("deletion_functions"), target.schema, list(_FUNCTIONS)):
            await connection.execute(f"DROP FUNCTION {schema}.{quoted(function['name'])}()")
        there = await connection.fetchval(
            "SELECT to_regnamespace(quote_ident($1)) IS NOT NULL", target.schema
        )
        if (
            there
            and target.schema != _ALL_OF
            and not await connection.fetchval(sql("deletion_left"), target.schema)
        ):
            await connection.execute(f"DROP SCHEMA {schema}")
