"""Health of stored maps: whether each graph's map can be read."""

from collections.abc import Sequence

from syncline.control.graphs import Graph
from syncline.control.maps import MapOptions, map_options
from syncline.control.services import Services
from syncline.errors import MapInvalid, MapNotFound, TenantInvalid
from syncline.operator.health.check import Check, CheckStatus
from syncline.quoting import counted

__all__ = ["check_maps"]

_NAME = "maps"


async def check_maps(services: Services, graphs: Sequence[Graph]) -> Sequence[Check]:
    """Return a check for each stored map that a graph names and that cannot be read; one if all can be."""
    named: dict[MapOptions, list[str]] = {}
    for graph in graphs:
        options = map_options(graph.composition)
        if options.map is not None:
            named.setdefault(options, []).append(graph.slug)
    unread = []
    for options, slugs in named.items():
        try:
            await services.maps.load(options)
        except (MapInvalid, MapNotFound, TenantInvalid) as error:
            found = f"the map of {', '.join(slugs)}: {error.problem}"
            unread.append(Check(name=_NAME, status=CheckStatus.FAIL, found=found, fix=error.fix))
    if unread or not named:
        return unread
    return [Check(name=_NAME, found=f"{counted(len(named), 'stored map')} can be read")]
