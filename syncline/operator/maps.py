"""Maps: which table map a graph's tables are looked at with, and what of the graph it may leave out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncline import names
from syncline.control.composition import parse_composition
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.render.statements import DELETES
from syncline.engine.table_map import SchemaMap
from syncline.errors import InputInvalid
from syncline.messages.verification import Verification
from syncline.operator.schema import reading
from syncline.provider import GraphSchema

if TYPE_CHECKING:
    from syncline.control.graphs import Graph
    from syncline.control.services import Services

__all__ = ["GraphMap", "map_of", "not_compared"]


@dataclass(frozen=True, kw_only=True)
class GraphMap:
    """A graph's table map: its provider's, or else the built-in one."""

    schema_map: SchemaMap
    unknown: str | None = None
    """Why the provider's own is not known here, in a sentence; None: `schema_map` is what it syncs."""

    @contextmanager
    def finding(self) -> Iterator[None]:
        """Say of a table that is not found that it may be one of the provider's own."""
        try:
            yield
        except InputInvalid as error:
            if self.unknown is None:
                raise
            raise InputInvalid(f"{error} Those are of the built-in table map. {self.unknown}") from None


def map_of(services: "Services", graph: "Graph", *, shadow: bool = False) -> GraphMap:
    """Return the map of whoever syncs the graph, or its shadow; raise CompositionInvalid."""
    entry = parse_composition(graph.slug, graph.composition).entry("sync", shadow=shadow)
    if entry is None or entry.provider in (names.DEFAULT_PROVIDER, names.FALLBACK_PROVIDER):
        return GraphMap(schema_map=KNOWLEDGE_GRAPH)
    who = f"Provider '{entry.provider}' of graph '{graph.slug}'"
    registered = services.registry.get("sync", entry.provider)
    if registered is None:
        return _unknown(f"{who} is not installed in this worker, so which tables it syncs is not known here.")
    try:
        offered = getattr(registered.provider, "schema_map", None)
    except Exception as error:  # whatever a plugin's property raises
        return _unknown(f"{who} raised {type(error).__name__} when it was asked for its `schema_map`.")
    if isinstance(offered, SchemaMap):
        return GraphMap(schema_map=offered)
    if offered is not None:
        return _unknown(f"{who} offers a `schema_map` that is no SchemaMap.")
    return _unknown(f"{who} offers no table map (`schema_map`), so which tables it syncs is not known.")


async def not_compared(place: GraphSchema, graph_map: GraphMap, found: Verification) -> tuple[str, ...]:
    """Return in sentences what of the graph was not compared, because nothing here knows its tables.

    A provider on the engine keeps a cursor for each of its tables. Where all cursors are of tables that were
    compared, and there was something to compare, nothing was left out.
    """
    if graph_map.unknown is None:
        return ()
    async with reading(place) as connection:
        rows = await connection.fetch("SELECT table_name FROM sync_cursor WHERE table_name <> $1", DELETES)
    known = {table.name for table in graph_map.schema_map}
    own = sorted({row["table_name"] for row in rows} - known)
    if own:
        return (f"Not compared: {', '.join(own)}. {graph_map.unknown}",)
    if not rows or not found.compared:
        return (f"Compared were the tables of the built-in map alone. {graph_map.unknown}",)
    return ()


def _unknown(why: str) -> GraphMap:
    return GraphMap(schema_map=KNOWLEDGE_GRAPH, unknown=why)
