"""Fifty tenants as fifty graphs over one schema (examples/multi-tenant): synced, changed, told apart by the listener."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import adopt
from syncline.capture.listen.listener import Listening
from syncline.capture.listen.status import listened_to, listener_name
from syncline.capture.listen.tenants import changed_tenants
from syncline.control.audit import Actor
from syncline.control.graphs import Graph, GraphChanges, GraphStatus, draft_graph
from syncline.control.services import Services
from syncline.control.sharing import refuse_undo
from syncline.engine.table_map import SchemaMap
from syncline.errors import CompositionInvalid, GraphInvalid, InputInvalid, TenantInvalid
from syncline.messages.sync import CycleStatus
from syncline.operator.health.check import CheckStatus
from syncline.operator.health.maps import check_maps
from syncline.operator.shared_collections import refuse_shared_by_graph
from syncline.settings import Settings
from syncline.testing.lab import eventually
from tests.kit.bare_graph import bare_graph
from tests.kit.run_starter import RunsStartedBy
from tests.kit.saas import EXAMPLE, SHARED, Saas, rows_of, saas_map, script, task, tenant

ALL = range(1, 51)
ACTOR = Actor(who="ada", why="tenants", starter=None, run_id=None)


def without_vectors(schema_map: SchemaMap) -> SchemaMap:
    return replace(schema_map, tables=tuple(replace(table, vector=None) for table in schema_map))


@pytest.mark.long("integration/test_tenants.py::test_each_graph_has_the_rows_of_its_tenant")
@pytest.mark.parametrize(
    "graphs", [pytest.param(range(4, 9), id="some"), pytest.param(ALL, id="all", marks=pytest.mark.proof)]
)
async def test_fifty_graphs_have_the_rows_of_one_tenant_each(
    new_database: Callable[..., str], tmp_path: Path, graphs: range
) -> None:
    async with bare_graph(new_database, tmp_path) as stores:
        # Points of one tenant are in test_tenants.py: fifty collections would take longer than all the rest.
        saas = Saas(stores, schema_map=without_vectors(saas_map()))
        await saas.prepare(graphs)
        await saas.source(rows_of(ALL))
        for number in graphs:
            result = await saas.cycle(number)
            assert (result.status, result.parked) == (CycleStatus.DRAINED, 0)
            assert [table.error for table in result.tables if table.error] == []
        await saas.source(f"UPDATE task SET title = 'changed' WHERE tenant_id = '{tenant(7)}'")
        assert [number for number in graphs if (await saas.cycle(number)).batches] == [7]
        assert await saas.titles(7) == ["changed"] * 3
        for number in (graphs[0], 7, graphs[-1]):
            assert await saas.titles(number) == (
                ["changed"] * 3 if number == 7 else [f"task {i} of {number}" for i in (1, 2, 3)]
            )
            assert (await saas.compared(number)).equal


# Records, and the listener ----------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def services(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Services]:
    """A control plane with the map, and the captured tables of the product."""
    settings = Settings(
        write_dsn=SecretStr(new_database()),
        graph_dsn=SecretStr(new_database()),
        qdrant_path=tmp_path / "qdrant",
        pool_size=4,
    )
    async with Services.open(settings) as opened:
        await opened.prepare_control()
        await opened.maps.put("saas", (EXAMPLE / "map.yaml").read_text(), hash="h", actor=ACTOR)
        await execute(opened, f"CREATE SCHEMA {SHARED}; SET search_path = {SHARED}; {script('source')}")
        await adopt(opened.store("write", None), SHARED, saas_map())
        yield opened


async def execute(services: Services, sql: str) -> None:
    connection = await asyncpg.connect(services.settings.write_dsn.get_secret_value())
    await connection.execute(f"SET search_path = {SHARED}")
    await connection.execute(sql)
    await connection.close()


def composition(whose: str | int | None, **more: object) -> dict[str, object]:
    options = {"map": "saas", **({} if whose is None else {"tenant": whose})}
    return {"sync": {"provider": "default", "options": options}, **more}


async def added(services: Services, slug: str, whose: str | None, **fields: object) -> Graph:
    draft = {"slug": slug, "write_schema": SHARED, "composition": composition(whose), **fields}
    return await services.graphs.add(draft_graph(draft), prepare=services.prepare_graph)


async def test_graphs_share_a_schema_only_as_different_tenants(services: Services) -> None:
    one = await added(services, "one", tenant(1))
    two = await added(services, "two", tenant(2))
    assert (one.source_schema, one.schema_name) == (SHARED, "one")
    assert services.write_schema(one).schema == SHARED
    assert [await services.graphs.alone(graph) for graph in (one, two)] == [True, True]
    with pytest.raises(GraphInvalid, match="graph 'one' has the rows of this tenant"):
        await added(services, "three", tenant(1).upper())
    with pytest.raises(TenantInvalid, match="none is given"):
        await added(services, "three", None, write_schema="elsewhere")
    with pytest.raises(GraphInvalid, match="not both have a tenant"):
        await added(services, "three", None)
    with pytest.raises(GraphInvalid, match="not both have a tenant"):
        await services.graphs.add(draft_graph({"slug": "three", "write_schema": SHARED}))
    with pytest.raises(GraphInvalid, match="not both have a tenant"):
        await services.graphs.add(draft_graph({"slug": SHARED}))
    with pytest.raises(TenantInvalid, match="no uuid"):
        await added(services, "three", "7")
    with pytest.raises(CompositionInvalid, match="a shadow has the rows of its graph"):
        shadow = composition(tenant(2), shadow=composition(tenant(3))["sync"])
        await services.graphs.update(two.id, GraphChanges.model_validate({"composition": shadow}))
    with pytest.raises(GraphInvalid, match="graph 'one' has the rows of this tenant"):
        await services.graphs.update(
            two.id, GraphChanges.model_validate({"composition": composition(tenant(1))})
        )
    with pytest.raises(InputInvalid, match="serves other graphs too: two"):
        refuse_undo(one, await services.graphs.sharing(one))
    # An archived one keeps its rows to itself, but not capture.
    await services.graphs.update(two.id, GraphChanges(status=GraphStatus.ARCHIVED))
    with pytest.raises(GraphInvalid, match="graph 'two' has the rows of this tenant"):
        await added(services, "three", tenant(2))
    refuse_undo(one, await services.graphs.sharing(one))


async def test_a_graph_without_its_tenant_keeps_no_other_from_being_added(services: Services) -> None:
    one = await added(services, "one", tenant(1))
    without = GraphChanges.model_validate({"composition": composition(None)})
    await services.graphs.update(one.id, without)
    await refuse_shared_by_graph(services, draft_graph({"slug": "other"}))
    [check] = await check_maps(services, [await services.graphs.get("one")])
    assert check.status is CheckStatus.FAIL
    assert check.found.startswith("the map of one: ")
    assert check.fix is not None
    assert "Name it in the composition" in check.fix


async def test_a_commit_of_one_tenant_of_fifty_runs_its_graph_alone(services: Services) -> None:
    for number in ALL:
        fields = {"slug": f"t{number}", "write_schema": SHARED, "composition": composition(tenant(number))}
        await services.graphs.add(draft_graph(fields))
    await execute(services, rows_of(ALL))
    woken: list[str] = []

    async def trigger(graph: Graph) -> str:
        woken.append(graph.slug)
        return "paused" if graph.slug == "t9" else "started"

    async def said(*slugs: str) -> bool:
        return set(slugs) <= set(woken)

    async with Listening(services, RunsStartedBy(trigger), namespace="tenants"):
        await eventually(lambda: heard(services))
        await asyncio.sleep(2.5)
        # What was there before anybody listened is nobody's news.
        assert woken == []
        await execute(services, f"UPDATE task SET title = 'x' WHERE tenant_id = '{tenant(7)}'")
        await eventually(lambda: said("t7"))
        assert woken == ["t7"]
        await asyncio.sleep(1.2)
        woken.clear()
        # Deletes, and moves, concern those whose rows they were and are.
        await execute(services, f"DELETE FROM task WHERE id = '{task(1, 8)}'")
        await execute(
            services, f"UPDATE label SET tenant_id = '{tenant(11)}' WHERE tenant_id = '{tenant(10)}'"
        )
        await eventually(lambda: said("t8", "t10", "t11"))
        # The first may run once more, for writers who were silent meanwhile: when, a busy machine says.
        assert set(woken) - {"t7"} == {"t8", "t10", "t11"}
        await asyncio.sleep(1.2)
        woken.clear()
        # A paused one delays none of the others.
        await execute(services, f"UPDATE task SET title = 'y' WHERE tenant_id = '{tenant(9)}'")
        await eventually(lambda: said("t9"))
        await execute(services, f"UPDATE task SET title = 'y' WHERE tenant_id = '{tenant(7)}'")
        await eventually(lambda: said("t7"), seconds=20)
        woken.clear()
        # What all of them have is everyone's news.
        await execute(services, "INSERT INTO plan VALUES ('new', 1)")
        await eventually(lambda: said(*(f"t{number}" for number in ALL if number != 9)))


async def heard(services: Services) -> bool:
    return await listened_to(
        services.store("write", None), listener_name("tenants", services, services.store("write", None))
    )


async def test_the_question_who_has_something_new_is_cheap(services: Services) -> None:
    await execute(services, rows_of(ALL, tasks=100))
    store = services.store("write", None)
    tenants = {f"t{number}": tenant(number) for number in ALL}
    async with store.driver() as connection:
        xid = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert await changed_tenants(store, SHARED, tenants, xid) == frozenset()
    await execute(services, f"INSERT INTO customer VALUES ('{tenant(3)}', 5, 'new', 'free')")
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        assert await changed_tenants(store, SHARED, tenants, xid) == {"t3"}
        taken.append(time.perf_counter() - started)
    assert min(taken) < 0.2, "10 ms with fifty tenants and six tables"
    # A value that is no such type is no reason to miss anything.
    assert await changed_tenants(store, SHARED, {**tenants, "t51": "x"}, xid) == {*tenants, "t51"}
