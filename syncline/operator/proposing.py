"""Proposing: reads both catalogs for a map proposal, and makes the target tables that it needs."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, RootModel
from pydantic import JsonValue as Json

from syncline.capture.install.catalog import read_catalog
from syncline.maps.document import read_map
from syncline.migrations import migrate_bookkeeping
from syncline.operator.map_catalog import read_map_tables, table_names
from syncline.operator.map_decisions import Side
from syncline.operator.map_proposal import propose_map
from syncline.operator.schema import sql
from syncline.operator.target_tables import target_tables
from syncline.provider import GraphSchema
from syncline.sql import literal, quoted

__all__ = ["JsonSchema", "Proposal", "create_targets", "propose"]


class Proposal(BaseModel):
    """A proposed map, and what its target lacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: str
    """The map as YAML."""
    statements: tuple[str, ...]
    """The DDL of target tables that the graph-db does not have, parents first."""


class JsonSchema(RootModel[dict[str, Json]]):
    """The JSON Schema of map documents."""


async def propose(
    write: GraphSchema, graph: GraphSchema, *, name: str, tenant: str | None = None
) -> Proposal:
    """Return a map of what can be synced of a write-db's schema. It changes nothing.

    `tenant`: the column that says whose a row is. Raise InputInvalid if no table has it, or
    none can be synced.
    """
    written, there = await _side(write), await _side(graph)
    document = propose_map(name, written, there, tenant=tenant)
    tables = target_tables(read_map(document, source="the proposal"), graph.schema, types={})
    missing = tuple(ddl for table, ddl in tables.items() if table not in there.catalog.tables)
    return Proposal(document=document, statements=missing)


async def create_targets(graph: GraphSchema, proposal: Proposal) -> None:
    """Make the schema, the engine's bookkeeping and the missing tables, the tables all at once or none."""
    await migrate_bookkeeping(graph.store, graph.schema)
    async with graph.store.driver() as connection, connection.transaction():
        for statement in proposal.statements:
            await connection.execute(statement)
        await connection.execute(sql("targets_made", schema=quoted(graph.schema), name=literal(graph.schema)))


async def _side(place: GraphSchema) -> Side:
    async with place.store.driver() as connection:
        names: Sequence[str] = await table_names(connection, place.schema)
        tables = await read_map_tables(connection, place.schema, names)
        return Side(catalog=await read_catalog(connection, place.schema), tables=tables)
