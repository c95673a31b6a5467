"""Shared collections: prefixes and collections of two graphs may make one name, and overwrite each other."""

from collections.abc import Iterator
from dataclasses import dataclass

from syncline import names
from syncline.control.graphs import Graph, GraphDraft
from syncline.control.maps import MapOptions, map_options
from syncline.control.services import Services
from syncline.errors import (
    CompositionInvalid,
    GraphInvalid,
    InputInvalid,
    MapInvalid,
    MapNotFound,
    TenantInvalid,
)
from syncline.maps.schema_map import SchemaMap
from syncline.operator.maps import map_of

__all__ = ["refuse_shared_by_graph", "refuse_shared_by_map"]


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """One name of two collections."""

    collection: str
    graphs: tuple[str, str]


async def refuse_shared_by_graph(services: Services, added: Graph | GraphDraft) -> None:
    """Raise GraphInvalid if a graph, new or with a new composition, would share a collection with another."""
    found = await _shared(services, added=added)
    if found is not None:
        raise GraphInvalid(
            added.slug,
            "qdrant_prefix",
            f"its collection '{found.collection}' is also one of graph '{found.graphs[0]}', and both would "
            "write it; name another prefix, or another collection in the map",
        )


async def refuse_shared_by_map(services: Services, name: str, schema_map: SchemaMap) -> None:
    """Raise InputInvalid if graphs of a stored map would share a collection by its new version."""
    found = await _shared(services, put=(name, schema_map))
    if found is not None:
        first, second = found.graphs
        raise InputInvalid(
            f"Map {name} would make '{found.collection}' a collection of graph '{first}' and of graph "
            f"'{second}', and both would write it.",
            fix="Name another collection in the map.",
        )


async def _shared(
    services: Services,
    *,
    added: Graph | GraphDraft | None = None,
    put: tuple[str, SchemaMap] | None = None,
) -> _Shared | None:
    graphs: list[Graph | GraphDraft] = [
        graph
        for graph in (await services.graphs.records()).valid
        if added is None or graph.slug != added.slug
    ]
    taken: dict[tuple[str | None, str], str] = {}
    loaded: dict[tuple[str, int | None], SchemaMap | None] = {} if put is None else {(put[0], None): put[1]}
    for graph in [*graphs, *([] if added is None else [added])]:
        for shadow in (False, True):
            for collection in await _collections(services, graph, loaded, shadow=shadow):
                owner = taken.setdefault((graph.qdrant_store, collection), graph.slug)
                if owner != graph.slug:
                    return _Shared(collection=collection, graphs=(owner, graph.slug))
    return None


async def _collections(
    services: Services,
    graph: Graph | GraphDraft,
    loaded: dict[tuple[str, int | None], SchemaMap | None],
    *,
    shadow: bool,
) -> list[str]:
    """Return a graph's collections; `loaded` has the stored maps of other graphs, and gets this one's."""
    if shadow and "shadow" not in graph.composition:
        return []
    prefix = graph.qdrant_prefix if isinstance(graph, Graph) else graph.place[1]
    options = map_options(graph.composition, shadow=shadow)
    if options.map is None:
        schema_map = await _unstored(services, graph, shadow=shadow)
    else:
        key = (options.map, options.map_version)
        if key not in loaded:
            loaded[key] = await _stored(services, options)
        schema_map = loaded[key]
    full = names.shadow_prefix(prefix) if shadow else prefix
    return [] if schema_map is None else [f"{full}{name}" for name in _named(schema_map)]


async def _stored(services: Services, options: MapOptions) -> SchemaMap | None:
    try:
        found = await services.maps.load_shared(options)
    except (MapInvalid, MapNotFound):
        return None  # Its graphs are refused, or fail their runs, by themselves.
    return None if found is None else found[1]


async def _unstored(services: Services, graph: Graph | GraphDraft, *, shadow: bool) -> SchemaMap | None:
    try:
        return (await map_of(services, graph, shadow=shadow)).schema_map
    except (CompositionInvalid, MapInvalid, MapNotFound, TenantInvalid):
        return None


def _named(schema_map: SchemaMap) -> Iterator[str]:
    return (table.vector.collection for table in schema_map if table.vector is not None)
