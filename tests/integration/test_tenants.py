"""Tenants: graphs that share source tables, each with the rows of one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from syncline.messages.sync import CycleStatus
from tests.kit.bare_graph import bare_graph
from tests.kit.saas import Saas, rows_of


@pytest_asyncio.fixture(loop_scope="session")
async def saas(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Saas]:
    """Two tenants with graphs, and the tables that they share with others."""
    async with bare_graph(new_database, tmp_path) as stores:
        made = Saas(stores)
        await made.prepare([1, 2])
        yield made


async def test_each_graph_has_the_rows_of_its_tenant(saas: Saas) -> None:
    await saas.source(rows_of([1, 2, 3]))
    for number in (1, 2):
        result = await saas.cycle(number)
        assert (result.status, [t.error for t in result.tables if t.error]) == (CycleStatus.DRAINED, [])
        assert result.parked == 0
        assert await saas.titles(number) == [f"task {i} of {number}" for i in (1, 2, 3)]
        [[links, customers, plans]] = await saas.target(
            number,
            "SELECT (SELECT count(*) FROM task_labels), (SELECT string_agg(name, ',') FROM customers),"
            " (SELECT count(*) FROM plans)",
        )
        assert (links, customers, plans) == (3, f"customer of {number}", 2)
        assert (await saas.compared(number)).outcome == (await saas.compared(number)).outcome
        found = await saas.compared(number)
        assert found.equal, found
