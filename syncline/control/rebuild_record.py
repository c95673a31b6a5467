"""Rebuilds of graphs, as the control plane has them: since when, how fast, and what was live before."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, Uuid, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from syncline.control.graphs import Graph
from syncline.stores.postgres import PostgresStore

__all__ = ["RebuildRecord", "RebuildRecords"]

_rebuilds: Final = Table(
    "graph_rebuilds",
    MetaData(schema="syncline"),
    Column("graph_id", Uuid, primary_key=True),
    Column("first_prefix", Text),
    Column("rows_per_second", Integer),
    Column("started_at", DateTime(timezone=True)),
    Column("kept_until", DateTime(timezone=True)),
)


class RebuildRecord(BaseModel):
    """A graph's rebuild that was started and not dropped."""

    model_config = ConfigDict(frozen=True)

    first_prefix: str
    """The graph's prefix when it was started."""
    rows_per_second: int | None = None
    started_at: datetime
    kept_until: datetime | None = None
    """When the generation before may go, by the last switch."""

    def switched(self, graph: Graph) -> bool:
        """Return whether readers see what was rebuilt, by the graph's record."""
        return graph.qdrant_prefix != self.first_prefix

    def kept_too_long(self, graph: Graph) -> bool:
        """Return whether the generation before is there for longer than the switch asked for."""
        return self.switched(graph) and self.kept_until is not None and self.kept_until < datetime.now(UTC)


class RebuildRecords:
    """Repository of the rebuilds, in the control database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def get(self, graph_id: UUID) -> RebuildRecord | None:
        """Return the graph's rebuild; None if there is none."""
        statement = select(_rebuilds).where(_rebuilds.c.graph_id == graph_id)
        async with self._store.begin() as connection:
            row = (await connection.execute(statement)).mappings().one_or_none()
        return None if row is None else RebuildRecord.model_validate(dict(row))

    async def put(self, graph: Graph, *, rows_per_second: int | None) -> None:
        """Record that a rebuild is started, with the prefix that the graph has now; or its new pace."""
        pace = {"rows_per_second": rows_per_second}
        values = {"graph_id": graph.id, "first_prefix": graph.qdrant_prefix, **pace}
        statement = insert(_rebuilds).values(values)
        async with self._store.begin() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=[_rebuilds.c.graph_id], set_=pace)
            )

    async def keep(self, graph_id: UUID, seconds: float) -> None:
        """Record that the generation before is kept for so long from now on."""
        until = func.now() + timedelta(seconds=seconds)
        wanted = _rebuilds.c.graph_id == graph_id
        async with self._store.begin() as connection:
            await connection.execute(update(_rebuilds).where(wanted).values(kept_until=until))

    async def kept_too_long(self, graphs: Sequence[Graph]) -> Mapping[str, datetime]:
        """Return slug -> when the generation before was to go, of these graphs that have it still."""
        statement = select(_rebuilds).where(_rebuilds.c.kept_until < func.now())
        async with self._store.begin() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        found = {row["graph_id"]: row for row in rows}
        return {
            graph.slug: found[graph.id]["kept_until"]
            for graph in graphs
            if graph.id in found and RebuildRecord.model_validate(dict(found[graph.id])).switched(graph)
        }

    async def remove(self, graph_id: UUID) -> None:
        """Forget a rebuild that is dropped."""
        async with self._store.begin() as connection:
            await connection.execute(delete(_rebuilds).where(_rebuilds.c.graph_id == graph_id))
