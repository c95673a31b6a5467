"""Changing the embedding of a graph: starts a second one, leads readers to it and back, drops one of them.

Each verb is a sequence of steps; after each, cycles continue, and the verb can be run again: it does what is
left. The graph-db says which generations there are, the control plane with what each is made, and the alias
in the vector store where readers look. Cycles look up by generation what they may write, so that between the
steps none writes vectors of another model into a collection.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from syncline.control.audit import Actor
from syncline.control.embedding_record import EmbeddingRecord
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine.table_map import SchemaMap
from syncline.engine.vectors.generations import SecondGeneration
from syncline.errors import EmbeddingChangeRefused, EmbeddingError
from syncline.messages.embedding import ChangeEmbeddingInput, EmbeddingAction, EmbeddingStatus
from syncline.names import second_collection
from syncline.operator.embedding_candidate import candidate, obstacles, refuse_beside_earlier, refused
from syncline.operator.embedding_state import GraphEmbeddings, describe_embedding, read_embeddings
from syncline.operator.schema import reading, sql
from syncline.operator.second_model import (
    drop_second,
    generations_of,
    make_second_main,
    mark_switched,
    start_second,
)
from syncline.quoting import counted, shown

__all__ = ["change_embedding", "drop", "refuse_while_changing", "rollback", "start", "switch", "to_drop"]

_PATIENCE: Final = 15.0
"""Seconds that `switch` waits for the second generation: rows of this moment reach it a little later."""
_AGAIN: Final = 0.5


async def change_embedding(
    services: Services, graph: Graph, schema_map: SchemaMap, request: ChangeEmbeddingInput, *, actor: Actor
) -> EmbeddingStatus:
    """Do what of a step is left to do; return what was done, and the state after it."""
    verbs: Mapping[EmbeddingAction, Callable[..., AsyncIterator[str]]] = {
        "start": partial(start, embedding=request.embedding),
        "switch": partial(switch, anyway=request.anyway),
        "rollback": rollback,
        "drop": drop,
    }
    did = [done async for done in verbs[request.action](services, graph, schema_map, actor=actor)]
    return await describe_embedding(await read_embeddings(services, graph, schema_map), did=did)


async def refuse_while_changing(services: Services, graph: Graph, *, action: str) -> int:
    """Return the graph's main generation; raise EmbeddingChangeRefused while it has a second one."""
    found = await generations_of(services.target_schema(graph))
    if found.second is not None:
        raise EmbeddingChangeRefused(
            graph.slug,
            action,
            "it is being changed: the graph has a second generation of collections",
            fix=f"See `syncline embedding status {graph.slug}`; `switch` and `drop` of that command end it.",
        )
    return found.main


async def start(
    services: Services, graph: Graph, schema_map: SchemaMap, *, embedding: str | None = None, actor: Actor
) -> AsyncIterator[str]:
    """Start a second embedding; yield what was done, after each step.

    Raise EmbeddingChangeRefused unless this worker reaches another embedding than the graph's, and it has no
    shadow. A second one that was started is completed if its start was interrupted.
    """
    found = await read_embeddings(services, graph, schema_map)
    second = found.generations.second
    recorded = None if second is None else found.records.get(second.generation)
    for problem, fix in obstacles(found) if second is None else ():
        raise refused(found, problem, fix)
    if recorded is not None:
        if embedding not in (None, recorded.embedding):
            raise refused(
                found,
                f"it is being changed to {shown(recorded.embedding)} already",
                f"`syncline embedding drop {graph.slug}` ends that one.",
            )
        await _ensure(found, second.generation if second is not None else 1, recorded)
        return
    chosen = candidate(found, embedding)
    await refuse_beside_earlier(found, "start")
    try:
        await chosen.service.embed(["syncline"])
    except EmbeddingError as error:
        raise refused(
            found,
            f"the second embedding does not answer. {error}",
            f"Check {chosen.variables}_URL, _API_KEY and _MODEL.",
        ) from None
    await services.graphs.audit(graph, "embedding-start", actor, fields=[chosen.service.name])
    async for done in _cleared(found):
        yield done
    main = found.records[found.generations.main]
    await _ensure(found, found.generations.main, main)
    vectors = found.vectors(found.generations.main)
    missing = {
        vectors.alias(name): vectors.collection(name)
        for name in found.collections
        if vectors.alias(name) not in found.store_aliases
    }
    if missing:
        await vectors.store.set_aliases(missing)
        yield f"Readers can query {', '.join(missing)}."
    generations = await start_second(found.target, schema_map, graph=graph.slug)
    number = _of(generations.second)
    yield f"Generation {number} is started: every point is queued for it."
    await services.embedding_records.put(graph.id, found.recorded_as(chosen), number)
    yield f"It is made with {chosen.service.name}."
    await _ensure(found, number, found.recorded_as(chosen))


async def switch(
    services: Services,
    graph: Graph,
    schema_map: SchemaMap,
    *,
    anyway: bool = False,
    actor: Actor,
    patience: float = _PATIENCE,
) -> AsyncIterator[str]:
    """Lead readers to the second embedding, all collections at once; yield what was done, after each step.

    Raise EmbeddingChangeRefused, unless `anyway`, if it lacks points that the main one has.
    """
    found = await read_embeddings(services, graph, schema_map)
    number, record = _second(found, "switch")
    if found.live == {number} and _switched(found):
        return
    owed, rejected = await _behind(found, patience=0 if anyway else patience)
    if (owed or rejected) and not anyway:
        raise EmbeddingChangeRefused(
            graph.slug,
            "switch",
            f"{record.embedding} still lacks {counted(owed, 'point')} that {_main(found)} has, and refuses "
            f"{counted(rejected, 'text')} that it does not",
            fix=f"Wait for it (`syncline embedding status {graph.slug}`), or give --anyway.",
        )
    await services.graphs.audit(graph, "embedding-switch", actor, fields=[record.embedding])
    async for done in _led(found, number, record, switched=True):
        yield done


async def rollback(
    services: Services, graph: Graph, schema_map: SchemaMap, *, actor: Actor
) -> AsyncIterator[str]:
    """Lead readers back to the main embedding, all collections at once; yield what was done."""
    found = await read_embeddings(services, graph, schema_map)
    _second(found, "rollback")
    number = found.generations.main
    if found.live == {number} and not _switched(found):
        return
    record = found.records[number]
    await services.graphs.audit(graph, "embedding-rollback", actor, fields=[record.embedding])
    async for done in _led(found, number, record, switched=False):
        yield done


async def drop(
    services: Services, graph: Graph, schema_map: SchemaMap, *, actor: Actor
) -> AsyncIterator[str]:
    """Drop the embedding that readers do not look at, with its collections; yield what was done.

    Raise EmbeddingChangeRefused if there is one only, or readers look at both. What an interrupted drop has
    left is cleared away.
    """
    found = await read_embeddings(services, graph, schema_map)
    goes = to_drop(found)
    named = sorted({record.embedding for number, record in found.records.items() if number in goes})
    second = found.generations.second
    if found.generations.main in goes:
        await refuse_beside_earlier(found, "drop")
    await services.graphs.audit(graph, "embedding-drop", actor, fields=named)
    if second is not None and found.generations.main in goes:
        await make_second_main(found.target)
        yield f"Generation {second.generation} is the main one."
    elif second is not None:
        await drop_second(found.target)
        yield f"Generation {second.generation} is given up."
    async for done in _cleared(await read_embeddings(services, graph, schema_map)):
        yield done


def to_drop(found: GraphEmbeddings) -> Sequence[int]:
    """Return the generations that `drop` would end; raise EmbeddingChangeRefused if there are none."""
    second, main = found.generations.second, found.generations.main
    if second is None:
        if not found.left:
            raise EmbeddingChangeRefused(
                found.graph.slug, "drop", "there is one embedding only", fix="There is nothing to drop."
            )
        return found.left
    if found.live == {second.generation}:
        return [main, *found.left]
    if found.live == {main}:
        return [second.generation, *found.left]
    raise EmbeddingChangeRefused(
        found.graph.slug,
        "drop",
        "readers look at both: not all aliases lead to the same generation",
        fix=f"Run `syncline embedding switch {found.graph.slug}`, or `rollback`, then try again.",
    )


def _of(second: SecondGeneration | None) -> int:
    if second is None:
        raise RuntimeError("a second generation was started, and there is none")
    return second.generation


def _main(found: GraphEmbeddings) -> str:
    record = found.records.get(found.generations.main)
    return "the main one" if record is None else record.embedding


def _switched(found: GraphEmbeddings) -> bool:
    second = found.generations.second
    return second is not None and second.switched_at is not None


def _second(found: GraphEmbeddings, action: str) -> tuple[int, EmbeddingRecord]:
    """Return number and record of the second generation."""
    second, slug = found.generations.second, found.graph.slug
    if second is None:
        fix = f"`syncline embedding plan {slug}` says what another would take."
        raise EmbeddingChangeRefused(slug, action, "there is one embedding only", fix=fix)
    record = found.records.get(second.generation)
    if record is None or record.dimensions is None:
        fix = f"Run `syncline embedding start {slug}` again."
        raise EmbeddingChangeRefused(slug, action, "the start of the second was interrupted", fix=fix)
    return second.generation, record


async def _behind(found: GraphEmbeddings, *, patience: float) -> tuple[int, int]:
    """Return how many points the second generation owes, and refuses, that the main one has."""
    pairs = list(found.collections), [second_collection(name) for name in found.collections]
    deadline = time.monotonic() + patience
    while True:
        async with reading(found.target) as connection:
            row = await connection.fetchrow(sql("embedding_behind"), *pairs)
        owed, rejected = row["owed"], row["refused"]
        if not owed or time.monotonic() >= deadline:
            return owed, rejected
        await asyncio.sleep(_AGAIN)


async def _led(
    found: GraphEmbeddings, number: int, record: EmbeddingRecord, *, switched: bool
) -> AsyncIterator[str]:
    """Move all aliases to one generation, then note it."""
    await _ensure(found, number, record)
    vectors = found.vectors(number)
    aliases = {vectors.alias(name): vectors.collection(name) for name in found.collections}
    await vectors.store.set_aliases(aliases)
    yield f"{', '.join(aliases)} lead to generation {number}, {record.embedding}."
    await mark_switched(found.target, switched=switched)


async def _ensure(found: GraphEmbeddings, number: int, record: EmbeddingRecord) -> None:
    """Make the collections of a generation that are missing: an alias cannot lead to nothing."""
    vectors = found.vectors(number)
    if record.dimensions is None:
        raise RuntimeError("a record without dimensions was not refused")
    for projection in found.projections:
        await vectors.store.ensure_collection(
            vectors.collection(projection.collection),
            dimensions=record.dimensions,
            indexed=projection.indexed,
            options=vectors.options,
        )


async def _cleared(found: GraphEmbeddings) -> AsyncIterator[str]:
    """Drop the collections of generations that are no longer used, then forget what they were made with."""
    for number in found.left:
        vectors = found.vectors(number)
        gone = [vectors.collection(name) for name in found.collections]
        for name in gone:
            await vectors.store.drop_collection(name)
        yield f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} dropped."
        await found.services.embedding_records.remove(found.graph.id, number)
        yield f"{found.records[number].embedding} is no longer recorded."
