"""A provider's `prepare`: called before the first cycle over a schema, and again when it is another one or it failed."""

from dataclasses import replace

import pytest

from activities.preparation import Preparation
from syncline.engine import run_cycle
from syncline.messages.sync import SyncResult
from syncline.migrations import migrate_graph
from syncline.provider import GraphSchema, NoOptions, ProviderServices, SyncContext, SyncProvider
from syncline.testing.graphs import TestGraph, on_target

SHADOW = "kg_shadow"


class OwnTable(SyncProvider):
    """Its cycles need a table that it makes."""

    id, version, api_version = "own-table", "1.0", 1

    def __init__(self) -> None:
        self.prepared: list[str] = []
        self.fails = False

    async def initialize(self, services: ProviderServices) -> None: ...

    async def close(self) -> None: ...

    async def prepare(self, context: SyncContext) -> None:
        self.prepared.append(context.target.schema)
        if self.fails:
            raise OSError("away")
        async with context.target.store.driver() as connection:
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {context.target.schema}.notes (at timestamptz)"
            )

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        async with context.target.store.driver() as connection:
            await connection.execute(f"INSERT INTO {context.target.schema}.notes VALUES (now())")
        return await run_cycle(context)


async def test_prepare_is_called_before_the_first_cycle_over_a_schema(graph: TestGraph) -> None:
    preparation, provider = Preparation(), OwnTable()
    cycle = preparation.first(provider, NoOptions())
    provider.fails = True
    with pytest.raises(OSError, match="away"):
        await cycle(graph.context())
    provider.fails = False
    for _ in range(2):
        assert (await cycle(graph.context())).drained
    assert provider.prepared == ["kg", "kg"]
    place = GraphSchema(store=graph.target, schema=SHADOW)
    for made in (1, 2):
        await migrate_graph(graph.target, SHADOW)
        shadow = replace(graph.context(), target=place, shadow=True)
        for _ in range(2):
            assert (await cycle(shadow)).drained
        # Dropped and made again, it is another one, whatever it is called.
        assert provider.prepared[2:] == [SHADOW] * made
        await on_target(graph, f"DROP SCHEMA {SHADOW} CASCADE")
