"""The schemas of graphs, for privileges: from their records, and from the table map where it is known."""

from collections.abc import Iterable, Mapping

from syncline import names
from syncline.control.composition import declared_provider
from syncline.control.graphs import Graph
from syncline.control.maps import map_options
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.table_map import SchemaMap
from syncline.rights.databases import Places
from syncline.rights.needed import Place

__all__ = ["places_of", "read_place"]


def places_of(graphs: Iterable[Graph], maps: Mapping[str, SchemaMap] | None = None) -> Places:
    """Return the graphs' schemas in both kinds of stores; always includes the system's stores.

    `maps`: slug -> the stored map of a graph that has one.
    """
    write: dict[str | None, list[Place]] = {None: []}
    target: dict[str | None, list[Place]] = {None: []}
    for graph in graphs:
        write.setdefault(graph.write_store, []).append(read_place(graph, (maps or {}).get(graph.slug)))
        target.setdefault(graph.graph_store, []).append(Place(schema=graph.schema_name))
    return Places(write=write, graph=target)


def read_place(graph: Graph, schema_map: SchemaMap | None = None) -> Place:
    """Return the graph's write-db schema, with the tables that are read if they are known.

    They are those of `schema_map`, its stored map, if it names one, else of the built-in map. Which tables a
    plugin reads, only the plugin knows.
    """
    if map_options(graph.composition).map is not None:
        tables = None if schema_map is None else tuple(dict.fromkeys(table.source for table in schema_map))
        return Place(schema=graph.schema_name, tables=tables)
    provider = declared_provider(graph.slug, graph.composition, "sync")
    if provider not in (None, names.DEFAULT_PROVIDER):
        return Place(schema=graph.schema_name)
    return Place(schema=graph.schema_name, tables=tuple(table.source for table in KNOWLEDGE_GRAPH))
