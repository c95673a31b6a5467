"""examples/graph_product with a real PgBouncer before both of its stores; no role is a superuser."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_asyncio
from temporalio.client import Client

from tests.workflow.test_graph_product_example import CHANGES, equal, taken_over
from tests.workflow.test_shop_example import Admin, Site, made_roles, opened_site

if TYPE_CHECKING:
    from conftest import Pooler


@pytest_asyncio.fixture(loop_scope="session")
async def pooled(
    temporal_client: Client,
    temporal_environment: dict[str, str],
    new_database: Callable[..., str],
    postgres_admin: Admin,
    pooler: "Callable[..., Pooler]",
    unique: Callable[[str], str],
    tmp_path: Path,
) -> AsyncIterator[tuple[Site, "Pooler"]]:
    """The site of the example, of which nobody reaches a database but through the pooler."""
    running = pooler("session", pool_size=20)
    roles = made_roles(unique, postgres_admin)
    running.admit(*roles)
    databases = running.through(new_database()), running.through(new_database())
    async with opened_site(temporal_client, temporal_environment, databases, roles, unique, tmp_path) as site:
        yield site, running


async def test_a_graph_product_behind_a_pooler(pooled: "tuple[Site, Pooler]", tmp_path: Path) -> None:
    """Session mode: taken over, changed, equal, ids kept. Another mode is refused, and costs nothing."""
    site, running = pooled
    await taken_over(site, tmp_path)

    running.set_mode("transaction", pool_size=2)
    refused = await site.command("map", "check", "map.yaml", "--graph", "product")  # over sessions of its own
    assert refused.status != 0
    assert "pool_mode" in refused.out + refused.err

    running.set_mode("session", pool_size=20)
    for change in CHANGES:
        await site.write_as_owner(change)
        await site.run("sync", "product")
        await equal(site)
