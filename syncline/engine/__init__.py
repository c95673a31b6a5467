"""The built-in sync engine: capture -> stage -> apply -> index, over declarative table maps.

A plugin that has other tables declares them as a `SchemaMap` and runs
`SyncEngine(its_map).run_cycle(context)` (docs/maps.md).
"""

from collections.abc import Callable
from functools import cache

from syncline import names
from syncline.engine.cycle import SyncEngine
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.table_map import (
    Column,
    Links,
    Reference,
    SchemaMap,
    Stat,
    Stats,
    TableMap,
    VectorProjection,
)
from syncline.messages.sync import LaneResult, SyncResult
from syncline.provider import SyncContext

__all__ = [
    "KNOWLEDGE_GRAPH",
    "Column",
    "Links",
    "Reference",
    "SchemaMap",
    "Stat",
    "Stats",
    "SyncEngine",
    "TableMap",
    "VectorProjection",
    "load_ranges",
    "run_cycle",
]


@cache
def _knowledge_graph_engine() -> SyncEngine:
    return SyncEngine(KNOWLEDGE_GRAPH)


async def run_cycle(
    context: SyncContext, *, frozen: bool = False, fast_load: bool | None = None
) -> SyncResult:
    """Run one cycle of the knowledge-graph engine: used by the default provider and by the fallback."""
    replacing = context.run.provider == names.FALLBACK_PROVIDER
    return await _knowledge_graph_engine().run_cycle(
        context, replacing=replacing, frozen=frozen, fast_load=fast_load
    )


async def load_ranges(context: SyncContext, *, lane: str, over: Callable[[], bool]) -> LaneResult:
    """Take part in the loads of a cycle of that engine: `SyncEngine.load_ranges`."""
    return await _knowledge_graph_engine().load_ranges(context, lane=lane, over=over)
