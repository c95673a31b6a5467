"""Shared maps: the graphs that one stored map syncs, and which of them a next version fits at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from syncline.control.maps import MapOptions, NewColumns, map_options
from syncline.provider import GraphSchema

if TYPE_CHECKING:
    from syncline.control.graphs import Graph, GraphRepository

__all__ = ["Sharing", "graphs_of_map", "sharing"]


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The other graphs of a map, from the point of view of one."""

    alike: tuple[GraphSchema, ...] = ()
    """Targets of those that read the same source tables, evolve too, and are in the same graph-db: what this
    graph finds at its source is there for them as well."""
    apart: tuple[str, ...] = ()
    """Why a next version may not fit the others, in words that follow their map."""


async def _of_map(graphs: "GraphRepository", name: str) -> list[tuple["Graph", MapOptions]]:
    found = [(graph, map_options(graph.composition)) for graph in (await graphs.records()).valid]
    return [(graph, own) for graph, own in found if own.map == name and own.map_version is None]


async def graphs_of_map(graphs: "GraphRepository", name: str) -> list[str]:
    """Return the slugs of the graphs that the newest version of a map syncs."""
    return [graph.slug for graph, _ in await _of_map(graphs, name)]


async def sharing(graphs: "GraphRepository", name: str, slug: str, target: GraphSchema) -> Sharing:
    """Return what the other graphs of a map have in common with this one, whose target is given."""
    found = await _of_map(graphs, name)
    own = next((graph for graph, _ in found if graph.slug == slug), None)
    if own is None:
        return Sharing()
    alike: list[GraphSchema] = []
    elsewhere: list[str] = []
    others: list[str] = []
    for graph, options in found:
        if graph is own:
            continue
        if (graph.write_store, graph.source_schema) != (own.write_store, own.source_schema):
            elsewhere.append(graph.slug)
        elif options.new_columns is not NewColumns.EVOLVE:
            others.append(f"{graph.slug} too, whose policy is `{options.new_columns.value}`")
        elif graph.graph_store != own.graph_store:
            others.append(f"{graph.slug} too, which is in another graph-db")
        else:
            alike.append(GraphSchema(store=target.store, schema=graph.schema_name))
    if elsewhere:
        others.insert(0, f"{', '.join(elsewhere)} too, and their write-dbs may lack it")
    return Sharing(alike=tuple(alike), apart=tuple(others))
