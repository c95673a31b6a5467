"""What each graph's vectors are made with, as the control plane has it: one truth, whichever worker runs.

A worker whose settings say otherwise writes no vectors of the graph. The first that writes some records it;
afterwards it changes only on request. While a graph's model changes it has two generations of vectors, and a
record of each.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Column, DateTime, Integer, MetaData, Select, Table, Text, Uuid, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from syncline.embeddings.service import Addressed, EmbeddingService
from syncline.errors import EmbeddingDiffers
from syncline.messages.base import GraphStatus
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import Located, VectorStore

__all__ = ["EmbeddingRecord", "EmbeddingRecords", "differing", "fitting", "record_of"]

_records = Table(
    "graph_embeddings",
    MetaData(schema="syncline"),
    Column("graph_id", Uuid, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("embedding", Text),
    Column("dimensions", Integer),
    Column("address", Text),
    Column("options", Text),
    Column("store", Text),
    Column("changed_at", DateTime(timezone=True)),
)
_graphs = Table(
    "graphs",
    MetaData(schema="syncline"),
    Column("id", Uuid, primary_key=True),
    Column("slug", Text),
    Column("status", Text),
    Column("qdrant_store", Text),
)
_LATER: Final = ("dimensions", "address", "options", "store")
"""What the first worker that fits fills in, where nothing is recorded."""
_SETTINGS: Final = {
    "embedding": "SYNCLINE_EMBEDDING, _MODEL and _DIMENSIONS",
    "dimensions": "SYNCLINE_EMBEDDING_DIMENSIONS",
    "address": "SYNCLINE_EMBEDDING_URL",
    "options": "SYNCLINE_EMBEDDING_BODY",
    "store": "SYNCLINE_QDRANT_URL (or SYNCLINE_QDRANTS)",
}
_WORDS: Final = {"options": "fields {}", "address": "at {}", "dimensions": "{} dimensions", "store": "in {}"}


class EmbeddingRecord(BaseModel):
    """What vectors are made with, and where they are. None: not recorded, so anything fits."""

    model_config = ConfigDict(frozen=True)

    embedding: str
    """The service's name: kind, model and dimensions."""
    dimensions: int | None = None
    address: str | None = None
    """Host, port and path of the service; empty for one without."""
    options: str | None = None
    """Fingerprint of the further fields of its requests; empty without any."""
    store: str | None = None
    """Host and port of the vector store, or `embedded`."""

    def differences(self, mine: "EmbeddingRecord") -> Sequence[str]:
        """Return the names of the fields that are recorded, and are others."""
        recorded = self.model_dump(exclude_none=True)
        return [name for name, value in recorded.items() if value != getattr(mine, name)]

    def described(self, names: Sequence[str]) -> str:
        """Return the embedding in words, with those of the fields that are named."""
        parts = [self.embedding]
        for name, words in _WORDS.items():
            value = getattr(self, name)
            if name in names:
                parts.append(words.format(value) if value else f"no {name}")
        return ", ".join(parts)


def record_of(service: EmbeddingService, store: VectorStore) -> EmbeddingRecord:
    """Return what this process would make vectors with."""
    address, options = "", ""
    if isinstance(service, Addressed):
        address = service.address
        if service.options:
            said = json.dumps(dict(service.options), sort_keys=True)
            options = hashlib.sha256(said.encode()).hexdigest()[:12]
    return EmbeddingRecord(
        embedding=service.name,
        dimensions=service.dimensions,
        address=address,
        options=options,
        store=store.address if isinstance(store, Located) else "embedded",
    )


def fitting(recorded: EmbeddingRecord, offered: Sequence[EmbeddingRecord]) -> int | None:
    """Return the place of the first that is as recorded."""
    return next((place for place, mine in enumerate(offered) if not recorded.differences(mine)), None)


def differing(
    graph: str, recorded: EmbeddingRecord, offered: Sequence[EmbeddingRecord], *, second: bool = False
) -> EmbeddingDiffers | None:
    """Return why a worker must not write vectors of which this is the record; None if it may.

    `offered`: what it can make vectors with. `second`: they are those of the model that the graph changes to.
    """
    if fitting(recorded, offered) is not None:
        return None
    # The nearest tells most.
    mine = min(offered, key=lambda one: one.embedding != recorded.embedding)
    names = recorded.differences(mine)
    if "embedding" in names:
        names = ["embedding"]
    return EmbeddingDiffers(
        mine.embedding,
        graph,
        found=recorded.described(names),
        mine=mine.described(names),
        settings=[_SETTINGS[name] for name in names],
        second=second,
    )


class EmbeddingRecords:
    """Repository of the records, in the control database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def get(self, graph_id: UUID, generation: int = 1) -> EmbeddingRecord | None:
        """Return the record of a generation of the graph's vectors, if it has one."""
        async with self._store.begin() as connection:
            row = (await connection.execute(_of(graph_id, generation))).mappings().one_or_none()
        return None if row is None else EmbeddingRecord.model_validate(dict(row))

    async def of_graph(self, graph_id: UUID) -> Mapping[int, EmbeddingRecord]:
        """Return generation -> record, of one graph."""
        statement = select(_records).where(_records.c.graph_id == graph_id).order_by(_records.c.generation)
        async with self._store.begin() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return {row["generation"]: EmbeddingRecord.model_validate(dict(row)) for row in rows}

    async def of_graphs(self) -> Sequence[tuple[str, str | None, EmbeddingRecord]]:
        """Return slug, store and record of each graph that is not archived, by slug and generation."""
        statement = (
            select(_graphs.c.slug, _graphs.c.qdrant_store, *_records.columns)
            .join(_graphs, _graphs.c.id == _records.c.graph_id)
            .where(_graphs.c.status != GraphStatus.ARCHIVED.value)
            .order_by(_graphs.c.slug, _records.c.generation)
        )
        async with self._store.begin() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [(row["slug"], row["qdrant_store"], EmbeddingRecord.model_validate(dict(row))) for row in rows]

    async def claim(
        self,
        graph_id: UUID,
        offered: Sequence[EmbeddingRecord],
        *,
        made_by: Sequence[str],
        generation: int = 1,
    ) -> EmbeddingRecord | None:
        """Return the record of a generation. Where nothing is recorded, record what this worker offers.

        `made_by` are the names of the services that made the vectors that are there. If none of them is
        offered, one of them is recorded: a record that is missing is no permission to embed all again. A
        generation after the first is recorded before its first vector: of one without, return None.
        """
        present = _of(graph_id, generation)
        async with self._store.begin() as connection:
            row = (await connection.execute(present)).mappings().one_or_none()
            if row is not None:
                found = EmbeddingRecord.model_validate(dict(row))
                place = fitting(found, offered)
                if place is None or not _unknown(found):
                    return found
                first = offered[place]
            elif made_by:
                known = [mine for mine in offered if mine.embedding in made_by]
                first = known[0] if known else EmbeddingRecord(embedding=min(made_by))
            elif generation > 1:
                return None
            else:
                first = offered[0]
            values = {"graph_id": graph_id, "generation": generation, **first.model_dump()}
            recorded = insert(_records).values(**values)
            filled = {name: func.coalesce(_records.c[name], recorded.excluded[name]) for name in _LATER}
            changed = recorded.on_conflict_do_update(
                index_elements=_KEY,
                set_={**filled, "changed_at": func.now()},
                where=_records.c.embedding == recorded.excluded.embedding,
            )
            await connection.execute(changed)
            row = (await connection.execute(present)).mappings().one()
        return EmbeddingRecord.model_validate(dict(row))

    async def accept(self, graph_id: UUID, embedding: str, generation: int = 1) -> None:
        """Record that a generation is to be of this embedding, at whatever address and store.

        Vectors of another embedding are then made again, by the next worker that has this one.
        """
        await self.put(graph_id, EmbeddingRecord(embedding=embedding), generation)

    async def put(self, graph_id: UUID, record: EmbeddingRecord, generation: int) -> None:
        """Record what a generation is made with, whatever was recorded before."""
        values = {**record.model_dump(), "changed_at": func.now()}
        changed = insert(_records).values(graph_id=graph_id, generation=generation, **values)
        async with self._store.begin() as connection:
            await connection.execute(changed.on_conflict_do_update(index_elements=_KEY, set_=values))

    async def remove(self, graph_id: UUID, generation: int) -> None:
        """Forget a generation that is dropped."""
        async with self._store.begin() as connection:
            await connection.execute(
                delete(_records).where(_records.c.graph_id == graph_id, _records.c.generation == generation)
            )


_KEY: Final = (_records.c.graph_id, _records.c.generation)


def _of(graph_id: UUID, generation: int) -> Select[tuple[object, ...]]:
    return select(_records).where(_records.c.graph_id == graph_id, _records.c.generation == generation)


def _unknown(record: EmbeddingRecord) -> bool:
    return any(getattr(record, name) is None for name in _LATER)
