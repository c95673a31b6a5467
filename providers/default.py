"""The built-in engine behind the provider contract, for graphs that name provider `default`."""

from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from syncline import names
from syncline.control.graphs import GraphRepository
from syncline.control.maps import FirstLoadPolicy, MapOptions, MapRepository, NewColumns
from syncline.messages.sync import LaneResult
from syncline.provider import LoadingProvider, ProviderServices, SyncContext, SyncResult

if TYPE_CHECKING:
    from syncline.engine import SyncEngine

__all__ = ["DefaultSyncProvider"]


_MOST_ENGINES = 100
"""Engines that are kept: one a version of a map. Another one is made again when its graph comes."""


class DefaultSyncProvider(LoadingProvider):
    """Runs the built-in engine by the stored map that its options name.

    Without one by the built-in map, exactly as a cycle in fallback does.
    """

    id = names.DEFAULT_PROVIDER
    api_version = 1
    options_model: ClassVar[type[BaseModel]] = MapOptions

    def __init__(self) -> None:
        self.version = version("syncline")
        self._maps: MapRepository | None = None
        self._graphs: GraphRepository | None = None
        self._engines: OrderedDict[tuple[str, int], SyncEngine] = OrderedDict()

    async def initialize(self, services: ProviderServices) -> None:
        """Import the engine; a worker whose graphs all have other providers never does."""
        import syncline.engine  # noqa: F401 -- slow, so not in the first cycle

        self._maps = MapRepository(services.control)
        self._graphs = GraphRepository(services.control)

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        """Run one cycle of the engine."""
        from syncline.engine import run_cycle

        maps, graphs = self._initialized
        options = _options(context)
        frozen = options.new_columns is NewColumns.FREEZE
        fast = None if options.first_load is None else options.first_load is FirstLoadPolicy.FAST
        if options.map is None:
            result = await run_cycle(context, frozen=frozen, fast_load=fast)
        else:
            engine = await self._engine(maps, options)
            result = await engine.of_tenant(options.tenant).run_cycle(context, frozen=frozen, fast_load=fast)
        if not result.new_columns:
            return result
        from syncline.operator.new_columns import decided

        return await decided(result, context, options, maps=maps, graphs=graphs)

    async def load_ranges(self, context: SyncContext, *, lane: str, over: Callable[[], bool]) -> LaneResult:
        """Take part in the loads of a cycle of the engine."""
        from syncline.engine import load_ranges

        maps, _ = self._initialized
        options = _options(context)
        if options.map is None:
            return await load_ranges(context, lane=lane, over=over)
        engine = await self._engine(maps, options)
        return await engine.of_tenant(options.tenant).load_ranges(context, lane=lane, over=over)

    @property
    def _initialized(self) -> tuple[MapRepository, GraphRepository]:
        if self._maps is None or self._graphs is None:
            raise RuntimeError("provider 'default' is not initialized; use Registry.initialized")
        return self._maps, self._graphs

    async def close(self) -> None:
        """Release the engines; they hold no resources between cycles."""
        self._maps = self._graphs = None
        self._engines.clear()

    async def _engine(self, maps: MapRepository, options: MapOptions) -> "SyncEngine":
        """Return the engine of a map, for every tenant.

        What it has found out about its graphs is kept from cycle to cycle.
        """
        from syncline.engine import SyncEngine

        loaded = await maps.load_shared(options)
        if loaded is None:
            raise RuntimeError("these options name no map")
        used, schema_map = loaded
        key = (used.name, used.version)
        if key not in self._engines:
            self._engines[key] = SyncEngine(schema_map)
            if len(self._engines) > _MOST_ENGINES:
                self._engines.popitem(last=False)
        self._engines.move_to_end(key)
        return self._engines[key]


def _options(context: SyncContext) -> MapOptions:
    return context.options if isinstance(context.options, MapOptions) else MapOptions()
