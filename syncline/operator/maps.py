"""Table map of a graph for operations: stored, or the provider's if it is available here, or the built-in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from syncline import names
from syncline.control.composition import parse_composition
from syncline.control.maps import map_options
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.render.statements import DELETES
from syncline.engine.state import FILL, LOAD
from syncline.engine.table_map import SchemaMap
from syncline.errors import InputInvalid
from syncline.maps.one_tenant import of_tenant
from syncline.maps.tenants import TenantOf
from syncline.messages.provider_state import UsedMap
from syncline.messages.verification import Verification
from syncline.operator.schema import reading
from syncline.provider import GraphSchema

if TYPE_CHECKING:
    from syncline.control.graphs import Graph, GraphDraft
    from syncline.control.services import Services

__all__ = ["GraphMap", "map_of", "not_compared"]


@dataclass(frozen=True, kw_only=True)
class GraphMap:
    """A graph's table map: a stored one, its provider's, otherwise the built-in one."""

    schema_map: SchemaMap
    unknown: str | None = None
    """Why the provider's own map is unknown here, in a sentence; None: `schema_map` is the provider's."""
    used: UsedMap | None = None
    """The stored map that `schema_map` is; None if it is no stored one."""

    @contextmanager
    def finding(self) -> Iterator[None]:
        """Extend an InputInvalid for an unknown table: it may be one of the provider's own tables."""
        try:
            yield
        except InputInvalid as error:
            if self.unknown is None:
                raise
            raise InputInvalid(f"{error} These are the tables of the built-in map. {self.unknown}") from None


async def map_of(services: "Services", graph: "Graph | GraphDraft", *, shadow: bool = False) -> GraphMap:
    """Return the table map of the provider of the graph, or of its shadow.

    Of a stored map that is not pinned it is the newest version, which the next cycle uses. Raise
    CompositionInvalid, or MapNotFound for a stored map that there is not.
    """
    entry = parse_composition(graph.slug, graph.composition).entry("sync", shadow=shadow)
    stored = await services.maps.load(map_options(graph.composition, shadow=shadow))
    if stored is not None:
        return GraphMap(schema_map=stored[1], used=stored[0])
    if entry is None or entry.provider in (names.DEFAULT_PROVIDER, names.FALLBACK_PROVIDER):
        return GraphMap(schema_map=KNOWLEDGE_GRAPH)
    who = f"Provider '{entry.provider}' of graph '{graph.slug}'"
    registered = services.registry.get("sync", entry.provider)
    if registered is None:
        return _unknown(f"{who} is not installed in this worker, so the tables that it syncs are unknown.")
    try:
        offered = getattr(registered.provider, "schema_map", None)
    except Exception as error:  # a plugin's property may raise anything
        return _unknown(f"{who} raised {type(error).__name__} when its `schema_map` was read.")
    if isinstance(offered, SchemaMap):
        return GraphMap(schema_map=_of_its_tenant(offered, entry.options.get("tenant")))
    if offered is not None:
        return _unknown(f"{who} has a `schema_map` that is not a SchemaMap.")
    return _unknown(f"{who} has no table map (`schema_map`), so the tables that it syncs are unknown.")


async def not_compared(place: GraphSchema, graph_map: GraphMap, found: Verification) -> tuple[str, ...]:
    """Return in sentences which parts of the graph were not compared, because their tables are unknown here.

    A provider based on the engine keeps a cursor per table. If all cursors belong to compared tables, and
    there is at least one, nothing was left out.
    """
    if graph_map.unknown is None:
        return ()
    async with reading(place) as connection:
        rows = await connection.fetch("SELECT table_name FROM sync_cursor WHERE table_name <> $1", DELETES)
    known = {table.name for table in graph_map.schema_map}
    own = sorted({row["table_name"].removeprefix(FILL).removeprefix(LOAD) for row in rows} - known)
    if own:
        return (f"Not compared: {', '.join(own)}. {graph_map.unknown}",)
    if not rows or not found.compared:
        return (f"Only the tables of the built-in map were compared. {graph_map.unknown}",)
    return ()


def _of_its_tenant(offered: SchemaMap, value: JsonValue) -> SchemaMap:
    """Return a provider's map of the tenant that its options name, if it has tenants; raise TenantInvalid."""
    declared = [table.of_tenant for table in offered if table.of_tenant is not None]
    if all(isinstance(tenant, TenantOf) for tenant in declared):
        return offered
    return of_tenant(offered, value if isinstance(value, str | int) and not isinstance(value, bool) else None)


def _unknown(why: str) -> GraphMap:
    return GraphMap(schema_map=KNOWLEDGE_GRAPH, unknown=why)
