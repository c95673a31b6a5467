"""A shop of one table for a map that is stored and synced by commands."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from temporalio.service import RPCError

from providers import BUILTIN
from syncline import names
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from tests.kit.databases import execute

__all__ = ["SHOP", "added", "composition", "opened"]

SHOP = """\
version: 1
name: shop
tables:
  goods:  # what is sold
    source: articles
    key: code
    columns: [title]
    vector: {collection: goods, text: t.title, payload: {code: t.key}}
"""
"""The map, as it stands in shop.yaml."""
_GRAPH = """
CREATE SCHEMA shop; CREATE TABLE shop.goods
    (id uuid PRIMARY KEY, key text NOT NULL, title text, sync_version bigint, sync_run bigint)
"""


@asynccontextmanager
async def opened(lab: SyncLab, *, write: str) -> AsyncIterator[SyncLab]:
    """Give a laboratory the built-in provider, and the shop's tables in schema `shop` of both stores."""
    lab.services.registry.load(BUILTIN, entry_points=False)
    await execute(lab.services.settings.write_dsn, write)
    await execute(lab.services.settings.graph_dsn, _GRAPH)
    yield lab
    # A change of the graph gives it a Schedule, and the next test's graph has the same name.
    with suppress(RPCError):
        await lab.client.get_schedule_handle(names.sync_schedule_id("shop")).delete()


def composition(**options: object) -> str:
    """Return that of a graph which the built-in provider syncs with these options."""
    return json.dumps({"sync": {"provider": "default", "options": options}})


async def added(at_home: CommandLine, **options: object) -> None:
    """Store the map of shop.yaml, and add and adopt the graph that is synced by it."""
    for command in (
        ("map", "put", "shop.yaml"),
        ("graph", "add", "shop", "--no-schedule", "--composition", composition(map="shop", **options)),
        ("graph", "adopt", "shop"),
    ):
        said = await at_home(*command)
        if said.status:
            raise AssertionError(f"{command}: {said.err}")
