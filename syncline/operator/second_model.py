"""The second generation of a graph's collections in its graph-db: its start, whom readers look at, its end.

Each step is one transaction under the graph's lock, and takes its fence: a cycle that has lost the lock
unnoticed commits nothing after it. A step that was done already changes nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from syncline import names
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine.render.identity import ours
from syncline.engine.render.points import PointNames
from syncline.engine.table_map import SchemaMap
from syncline.engine.vectors.generations import Generations, read_generations
from syncline.errors import ShadowInvalid, StoreUnavailable
from syncline.migrations import migrate_bookkeeping
from syncline.operator.schema import acting, reading, sql
from syncline.provider import GraphSchema, GraphVectors
from syncline.sql import quoted
from syncline.verify.verify import SecondGraphVectors

__all__ = [
    "drop_second",
    "generations_of",
    "main_vectors",
    "make_second_main",
    "mark_switched",
    "second_vectors",
    "start_second",
]

_PATIENCE: Final = "20s"
_LOCK_NOT_AVAILABLE: Final = "55P03"


async def generations_of(target: GraphSchema) -> Generations:
    """Return which generations a graph has; one without tables has the first."""
    async with target.store.driver() as driver:
        if not await driver.fetchval("SELECT to_regclass($1)", f"{quoted(target.schema)}.sync_state"):
            return Generations()
    async with reading(target) as connection:
        return await read_generations(connection)


async def main_vectors(
    services: Services, graph: Graph, *, shadow: bool = False
) -> tuple[GraphVectors, Generations]:
    """Return the main generation of the graph's collections, or its shadow's, and which there are."""
    generations = await generations_of(services.target_schema(graph, shadow=shadow))
    return services.graph_vectors(graph, shadow=shadow).of_generation(generations.main), generations


async def second_vectors(
    services: Services, graph: Graph, vectors: GraphVectors, generations: Generations
) -> SecondGraphVectors | None:
    """Return what a comparison of the second generation needs; None without one, or before it is recorded."""
    second = generations.second
    if second is None or await services.embedding_records.get(graph.id, second.generation) is None:
        return None
    embedding = await services.vectors_made_with(graph, second.generation)
    return SecondGraphVectors(vectors=vectors.of_generation(second.generation), embedding=embedding)


async def start_second(
    target: GraphSchema, schema_map: SchemaMap, *, graph: str | None = None
) -> Generations:
    """Start a second generation and queue all its points; return what there is, also if that was done before.

    From this commit on, whatever is queued for the main generation is queued for the second one too. Cycles
    write nothing of it before it is recorded what it is made with (`EmbeddingRecords.put`). Its number was
    never used before. Raises StoreUnavailable while a cycle holds the graph for long, ShadowInvalid, with the
    slug `graph`, while there is a shadow: it has vectors of one model.
    """
    await migrate_bookkeeping(target.store, target.schema)
    async with _held(target) as connection:
        shadow = quoted(names.shadow_schema(target.schema))
        if await connection.fetchval("SELECT to_regclass($1)", f"{shadow}.sync_state"):
            graph = graph or target.schema
            raise ShadowInvalid(
                graph,
                "it has vectors of one model, so the graph's cannot change while it is there: promote it, or "
                f"drop it by `syncline graph set {graph} --drop-shadow`",
            )
        if await connection.fetchval(sql("second_start")) is not None:
            await connection.execute(sql("second_forget"))
            for table in schema_map:
                if table.vector is None:
                    continue
                rows = f"{ours(table)} t" if table.listed else ours(table)
                points = PointNames(table).queued()
                query = sql("second_queue", target=rows, named=points["named"], id=points["id"])
                await connection.execute(query, names.second_collection(table.vector.collection))
            await connection.execute(sql("second_empty"))
        return await read_generations(connection)


async def mark_switched(target: GraphSchema, *, switched: bool) -> Generations:
    """Note whether readers look at the second generation; return what there is.

    A collection that is made again gets its alias by this. It takes no lock: a cycle goes on meanwhile.
    """
    async with acting(target) as connection:
        await connection.execute(sql("second_switched"), switched)
        return await read_generations(connection)


async def make_second_main(target: GraphSchema) -> Generations:
    """Make the second generation the main one, and forget what was of the main one; return what there is.

    Entries, vectors' states, delays and counts of the second are the main one's from this commit on; the
    collections themselves stay. Raises StoreUnavailable while a cycle holds the graph for long.
    """
    async with _held(target) as connection:
        generation = await connection.fetchval(sql("second_end"))
        if generation is not None:
            await connection.execute(sql("main_forget"))
            await connection.execute(sql("second_rename"))
            await connection.execute(sql("second_main"), generation)
        return await read_generations(connection)


async def drop_second(target: GraphSchema) -> Generations:
    """Forget the second generation; return what there is. Its collections stay.

    Raises StoreUnavailable while a cycle holds the graph for long.
    """
    async with _held(target) as connection:
        await connection.execute(sql("second_end"))
        await connection.execute(sql("second_forget"))
        return await read_generations(connection)


@asynccontextmanager
async def _held(target: GraphSchema) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection in a transaction that has the graph's lock and fence."""
    async with acting(target) as connection:
        await connection.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
        try:
            await connection.fetchval(sql("second_lock"), target.schema)
            await connection.execute(sql("second_queueing"))
        except asyncpg.LockNotAvailableError as error:
            raise StoreUnavailable(
                target.store.name,
                f"a cycle, or somebody who queues points, has held schema '{target.schema}' for {_PATIENCE}, "
                "so nothing was changed",
                sqlstate=_LOCK_NOT_AVAILABLE,
            ) from error
        await connection.execute(sql("second_fence"), target.schema)
        yield connection
