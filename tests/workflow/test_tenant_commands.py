"""Two tenants of one schema by the commands of docs/maps.md, through Temporal; a shadow of one is promoted."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from temporalio.service import RPCError

from providers import BUILTIN
from syncline import names
from syncline.shadow.prepare import prepare_shadow
from syncline.testing.lab import SyncLab, eventually
from tests.kit.command_line import CommandLine
from tests.kit.saas import EXAMPLE, SHARED, rows_of, script, task, tenant

SLUGS = ("acme", "bolt")


async def _execute(lab: SyncLab, side: str, schema: str, sql: str) -> list[asyncpg.Record]:
    settings = lab.services.settings
    dsn = settings.write_dsn if side == "write" else settings.graph_dsn
    connection = await asyncpg.connect(dsn.get_secret_value())
    try:
        await connection.execute(
            f"CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path = {schema}, syncline"
        )
        if ";" in sql:
            await connection.execute(sql)
            return []
        return list(await connection.fetch(sql))
    finally:
        await connection.close()


@pytest_asyncio.fixture(loop_scope="session")
async def product(lab: SyncLab) -> AsyncIterator[SyncLab]:
    """A laboratory with the product's tables, and schemas for readers."""
    lab.services.registry.load(BUILTIN, entry_points=False)
    await _execute(lab, "write", SHARED, script("source") + rows_of([1, 2, 3]))
    for schema in SLUGS:
        await _execute(lab, "graph", schema, script("target"))
    yield lab
    for slug in SLUGS:
        with suppress(RPCError):
            await lab.client.get_schedule_handle(names.sync_schedule_id(slug)).delete()


@pytest.fixture
def at_home(product: SyncLab, with_stores: Callable[[SyncLab], CommandLine], tmp_path: Path) -> CommandLine:
    (tmp_path / "saas.yaml").write_text((EXAMPLE / "map.yaml").read_text())
    return with_stores(product)


def _composition(whose: str | None, *, shadow: bool = False) -> str:
    options = {"map": "saas"} if whose is None else {"map": "saas", "tenant": whose}
    entry = {"provider": "default", "options": options}
    return json.dumps({"sync": entry, **({"shadow": entry} if shadow else {})})


async def _titles(lab: SyncLab, schema: str) -> list[str]:
    rows = await _execute(lab, "graph", schema, "SELECT title FROM tasks ORDER BY title")
    return [row["title"] for row in rows]


async def test_two_tenants_of_one_schema_by_commands(product: SyncLab, at_home: CommandLine) -> None:
    said = await at_home("map", "put", "saas.yaml")
    assert said.status == 0, said.err
    for slug, whose in zip(SLUGS, (tenant(1), tenant(2)), strict=True):
        for command in (
            (
                "graph",
                "add",
                slug,
                "--write-schema",
                SHARED,
                "--no-schedule",
                "--composition",
                _composition(whose),
            ),
            ("graph", "adopt", slug),
            ("map", "check", "saas", "--graph", slug),
            ("sync", slug),
        ):
            said = await at_home(*command)
            assert said.status == 0, (command, said.out, said.err)
            if slug == "bolt" and command[:2] == ("graph", "adopt"):
                assert "Nothing to do" in said.out
    assert await _titles(product, "acme") == [f"task {i} of 1" for i in (1, 2, 3)]
    assert await _titles(product, "bolt") == [f"task {i} of 2" for i in (1, 2, 3)]
    for slug in SLUGS:
        verified: Any = await at_home.answer("verify", slug)
        assert (verified["not_compared"], verified.get("damaged", 0)) == ([], 0), verified
    explained: Any = await at_home.answer("explain", "acme", "tasks", task(1, 1))
    assert (explained["write"]["exists"], explained["graph"]["exists"]) == (True, True)
    others = await at_home("explain", "acme", "tasks", task(1, 2), "--json")
    assert json.loads(others.out)["state"] == "unknown_key", "a row of another tenant is nothing to it"

    # What does not fit is refused at once, by the command and by a run of a record that was edited by hand.
    for whose, words in (
        (None, "none is given"),
        ("7", "is no uuid"),
        (tenant(2), "has the rows of this tenant"),
    ):
        refused = await at_home("graph", "set", "acme", "--composition", _composition(whose))
        assert (refused.status, words in refused.err) == (2, True), refused.err
    undone = await at_home("graph", "adopt", "acme", "--undo")
    assert (undone.status, "serves other graphs too: bolt" in undone.err) == (2, True), undone.err
    await _execute(
        product,
        "graph",
        "syncline",
        "UPDATE syncline.graphs SET composition = composition #- '{sync,options,tenant}' WHERE slug = 'bolt'",
    )
    run = await product.start(await product.services.graphs.get("bolt"))
    failure = await product.failure(run)
    assert (failure.type, failure.non_retryable) == ("TenantInvalid", True)
    assert (await at_home("graph", "set", "bolt", "--composition", _composition(tenant(2)))).status == 0

    # Archived, it leaves the other's capture alone.
    assert (await at_home("graph", "archive", "bolt")).status == 0
    await _execute(
        product, "write", SHARED, f"UPDATE task SET title = 'changed' WHERE tenant_id = '{tenant(1)}'"
    )
    assert (await at_home("sync", "acme")).status == 0
    assert await _titles(product, "acme") == ["changed"] * 3


@pytest.mark.long("test_two_tenants_of_one_schema_by_commands")
async def test_a_shadow_of_a_tenant_is_compared_and_promoted(product: SyncLab, at_home: CommandLine) -> None:
    assert (await at_home("map", "put", "saas.yaml")).status == 0
    both = _composition(tenant(1), shadow=True)
    for command in (
        ("graph", "add", "acme", "--write-schema", SHARED, "--no-schedule", "--composition", both),
        ("graph", "adopt", "acme"),
    ):
        said = await at_home(*command)
        assert said.status == 0, said.err
    graph = await product.services.graphs.get("acme")
    await prepare_shadow(product.services, graph, "default")
    await _execute(product, "graph", "acme_shadow", script("target"))
    assert (await at_home("sync", "acme")).status == 0

    async def followed() -> bool:
        return await _titles(product, "acme_shadow") == await _titles(product, "acme")

    await eventually(followed)
    compared = await at_home("verify", "acme", "--shadow")
    assert compared.status == 0, compared.out
    promoted = await at_home("provider", "promote", "acme", "--reason", "as good")
    assert promoted.status == 0, promoted.err
    await _execute(product, "write", SHARED, f"UPDATE task SET title = 'new' WHERE tenant_id = '{tenant(1)}'")
    assert (await at_home("sync", "acme")).status == 0
    assert await _titles(product, "acme") == ["new"] * 3
    verified: Any = await at_home.answer("verify", "acme")
    assert (verified["not_compared"], verified.get("damaged", 0)) == ([], 0), verified
