"""Stored maps for operators: storing a document, and which graphs each version syncs."""

import re
from collections.abc import Mapping, Sequence

from syncline.control.audit import Actor
from syncline.control.maps import MAP_NAME, MapPut, StoredMap, map_options
from syncline.control.services import Services
from syncline.engine.map_changes import map_hash
from syncline.errors import InputInvalid
from syncline.maps.document import read_map
from syncline.messages.operator import ListMapsInput, MapPage, PutMapInput
from syncline.operator.schema import checked_limit, first_page
from syncline.operator.shared_collections import refuse_shared_by_map
from syncline.quoting import shown

__all__ = ["list_maps", "put_map"]


async def put_map(services: Services, request: PutMapInput, actor: Actor) -> MapPut:
    """Store a document as the next version of a map; raise MapInvalid with all that is wrong with it.

    A map without a name of its own has that of the document.
    """
    schema_map = read_map(request.document, source=request.source or "The document")
    name = request.name or schema_map.name
    if re.match(MAP_NAME, name) is None:
        raise InputInvalid(
            f"No map can be stored under the name {shown(name)}.",
            fix="Give it another with `--name`: lower-case letters, digits, `-` and `_`, 63 at most.",
        )
    await refuse_shared_by_map(services, name, schema_map)
    put = await services.maps.put(name, request.document, hash=map_hash(schema_map), actor=actor)
    [stored] = await _with_graphs(services, [put.stored], newest=_newest([put.stored]))
    return put.model_copy(update={"stored": stored})


async def list_maps(services: Services, request: ListMapsInput) -> MapPage:
    """Return a page of the newest versions of all maps, or of all versions of one; raise MapNotFound."""
    limit = checked_limit(request.limit)
    if request.name is None:
        found = await services.maps.list(after=request.after, limit=limit + 1)
        page = first_page(found, limit)
        after = page[-1].name if len(found) > len(page) else None
        return MapPage(maps=await _with_graphs(services, page, newest=_newest(page)), next=after)
    # A page past the end is empty; a map that there is not is an error.
    newest = _newest([await services.maps.get(request.name)])
    found = await services.maps.history(request.name, before=request.before, limit=limit + 1)
    page = first_page(found, limit)
    before = page[-1].version if len(found) > len(page) else None
    return MapPage(maps=await _with_graphs(services, page, newest=newest), before=before)


def _newest(maps: Sequence[StoredMap]) -> dict[str, int]:
    return {stored.name: stored.version for stored in maps}


async def _with_graphs(
    services: Services, maps: Sequence[StoredMap], *, newest: Mapping[str, int]
) -> tuple[StoredMap, ...]:
    """Return the maps with the graphs that each version syncs; `newest` is the newest version of each."""
    syncs: dict[tuple[str, int], list[str]] = {}
    for graph in (await services.graphs.records()).valid:
        options = map_options(graph.composition)
        if options.map is not None and options.map in newest:
            version = options.map_version or newest[options.map]
            syncs.setdefault((options.map, version), []).append(graph.slug)
    return tuple(
        stored.model_copy(update={"graphs": tuple(syncs.get((stored.name, stored.version), ()))})
        for stored in maps
    )
