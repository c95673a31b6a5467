"""The generations of a graph's vectors, as graph-db, control plane and vector store have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from syncline import names
from syncline.control.embedding_record import EmbeddingRecord, record_of
from syncline.control.graphs import Graph
from syncline.control.offered import OfferedEmbedding
from syncline.control.services import Services
from syncline.engine.table_map import SchemaMap, VectorProjection
from syncline.engine.vectors.generations import Generations
from syncline.messages.embedding import EmbeddingStatus, GenerationState, LiveAlias
from syncline.operator.schema import reading, sql
from syncline.operator.second_model import generations_of
from syncline.provider import GraphSchema, GraphVectors
from syncline.quoting import counted

__all__ = ["GraphEmbeddings", "describe_embedding", "read_embeddings"]


@dataclass(frozen=True, kw_only=True)
class GraphEmbeddings:
    """What was read of a graph's vectors."""

    services: Services
    graph: Graph
    projections: Sequence[VectorProjection]
    target: GraphSchema
    generations: Generations
    records: Mapping[int, EmbeddingRecord]
    """Generation -> what it is made with."""
    store_aliases: Mapping[str, str]
    """Alias -> collection, of all that the vector store has."""

    @property
    def collections(self) -> Sequence[str]:
        """The collections, as the map names them."""
        return [projection.collection for projection in self.projections]

    @property
    def left(self) -> Sequence[int]:
        """Generations that are no longer used, and not cleared away: a `drop` was interrupted."""
        second = self.generations.second
        used = {self.generations.main, *([] if second is None else [second.generation])}
        return sorted(set(self.records) - used)

    @property
    def aliases(self) -> Sequence[LiveAlias]:
        """What each collection's alias leads to."""
        second = self.generations.second
        known = {self.generations.main, *self.records, *([] if second is None else [second.generation])}
        found = []
        for name in self.collections:
            alias = self.vectors().alias(name)
            places = {self.vectors(number).collection(name): number for number in known}
            collection = self.store_aliases.get(alias)
            found.append(
                LiveAlias(
                    alias=alias,
                    collection=collection,
                    generation=None if collection is None else places.get(collection),
                )
            )
        return found

    @property
    def live(self) -> set[int | None]:
        """The generations that aliases lead to; None is a collection that is none of the graph's.

        Where there are no aliases yet, readers query the main collections.
        """
        led = {alias.generation for alias in self.aliases if alias.collection is not None}
        return led or {self.generations.main}

    def vectors(self, generation: int = 1) -> GraphVectors:
        """Return the collections of a generation."""
        return self.services.graph_vectors(self.graph).of_generation(generation)

    def listed(self, generation: int) -> Sequence[str]:
        """Return the names by which the graph-db lists the collections of a generation."""
        if generation == self.generations.main:
            return self.collections
        return [names.second_collection(name) for name in self.collections]

    def recorded_as(self, offered: OfferedEmbedding) -> EmbeddingRecord:
        """Return what would be recorded of an embedding that this process offers."""
        return record_of(offered.service, self.vectors().store)

    def setting_of(self, record: EmbeddingRecord | None) -> str | None:
        """Return what the names of the settings begin with that make such vectors here; None if none do."""
        if record is None:
            return None
        fitting = (
            one.variables for one in self.services.offered if not record.differences(self.recorded_as(one))
        )
        return next(fitting, None)


async def read_embeddings(services: Services, graph: Graph, schema_map: SchemaMap) -> GraphEmbeddings:
    """Read them; raise StoreError or VectorStoreError if one of the three does not answer."""
    target = services.target_schema(graph)
    return GraphEmbeddings(
        services=services,
        graph=graph,
        projections=[table.vector for table in schema_map if table.vector is not None],
        target=target,
        generations=await generations_of(target),
        records=await services.embedding_records.of_graph(graph.id),
        store_aliases=await services.vector_store(graph.qdrant_store).aliases(),
    )


async def describe_embedding(found: GraphEmbeddings, *, did: Sequence[str] = ()) -> EmbeddingStatus:
    """Return the state of each generation, and what to do next."""
    second, main = found.generations.second, found.generations.main
    async with reading(found.target) as connection:
        states = [await _state(found, connection, main, role="main")]
        if second is not None:
            state = await _state(found, connection, second.generation, role="second")
            times = {
                "since": second.started_at,
                "filled_at": second.filled_at,
                "switched_at": second.switched_at,
            }
            states.append(state.model_copy(update=times))
    for number in found.left:
        record = found.records[number]
        states.append(
            GenerationState(
                generation=number, role="left", embedding=record.embedding, dimensions=record.dimensions
            )
        )
    sentence, verb = _next(found, states)
    return EmbeddingStatus(
        graph=found.graph.slug,
        generations=tuple(states),
        aliases=tuple(found.aliases),
        did=tuple(did),
        next=sentence,
        command=None if verb is None else f"syncline embedding {verb} {found.graph.slug}",
    )


async def _state(
    found: GraphEmbeddings, connection: asyncpg.Connection, generation: int, *, role: str
) -> GenerationState:
    rows = await connection.fetch(sql("embedding_counts"), list(found.listed(generation)))
    record = found.records.get(generation)
    return GenerationState.model_validate(
        {
            "generation": generation,
            "role": role,
            "embedding": None if record is None else record.embedding,
            "dimensions": None if record is None else record.dimensions,
            "live": generation in found.live,
            **{name: sum(row[name] for row in rows) for name in ("confirmed", "owed", "refused")},
            "setting": found.setting_of(record),
            "error": next((row["error"] for row in rows if row["error"] is not None), None),
        }
    )


def _next(found: GraphEmbeddings, states: Sequence[GenerationState]) -> tuple[str, str | None]:
    second = found.generations.second
    if found.left:
        return "What an interrupted drop has left is to be cleared away.", "drop"
    if second is None:
        if len(found.services.offered) == 1:
            return (
                "There is one embedding. Another begins with SYNCLINE_SECOND_EMBEDDING of the workers.",
                None,
            )
        return "There is one embedding.", "plan"
    main, other = states[0], states[1]
    live = found.live
    if other.embedding is None:
        return "What the second is made with is not recorded: its start was interrupted.", "start"
    if live == {second.generation} and second.switched_at is not None:
        return (
            f"Readers look at {other.embedding}. `rollback` leads them back; `drop` ends {main.embedding}.",
            "drop",
        )
    if live != {main.generation}:
        return "A switch was interrupted: run it again, or lead all readers back by `rollback`.", "switch"
    if other.owed > main.owed:
        return f"The second fills: {counted(other.owed, 'point')} to go.", "status"
    if other.refused > main.refused:
        more = counted(other.refused - main.refused, "text")
        return f"The second was refused {more} that the main one has.", "status"
    return "The second has all that the main one has: readers can be led to it.", "switch"
