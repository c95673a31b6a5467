"""A graph is deleted and renamed by command: listed, asked about, audited, finished after a death at each step."""

import asyncio
from typing import Any

import pytest

from syncline.control.audit import Actor
from syncline.control.graphs import Graph, GraphChanges, GraphStatus
from syncline.errors import GraphNotFound, InputInvalid
from syncline.messages.sync import SyncResult
from syncline.operator.graph_deletion import STEPS, delete_graph
from syncline.operator.maps import map_of
from syncline.provider import SyncContext
from syncline.temporal.runs import refuse_open_runs
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.list import find_schedule
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.cases import further
from tests.kit.command_line import CommandLine
from tests.workflow.test_freshness import SELDOM

ACTOR = Actor(who="anna", why="moved")


async def filled(lab: SyncLab) -> Graph:
    """A graph with three facts and their points."""
    graph = await lab.add_graph("default", prepare=True, schedule=SELDOM)
    async with lab.services.store("write", None).driver() as connection:
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_facts (id, content, dedup_status)"
            " SELECT 'f' || i, 'text ' || i, 'ready' FROM generate_series(1, 3) i"
        )
    await lab.run(graph)
    return graph


async def asked(lab: SyncLab, side: str, statement: str) -> Any:
    async with lab.services.store("write" if side == "write" else "graph", None).driver() as connection:
        return await connection.fetchval(statement)


async def triggers(lab: SyncLab, graph: Graph) -> int:
    return await asked(
        lab,
        "write",
        "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal"
        f" AND c.relnamespace = to_regnamespace('{graph.schema_name}')",
    )


async def test_graph_delete_lists_asks_deletes_and_leaves_what_is_others(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await filled(lab)
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    schema, points = graph.schema_name, f"{graph.qdrant_prefix}facts"
    store = lab.services.vector_store(None)
    await asked(lab, "graph", f"CREATE VIEW {schema}.theirs AS SELECT content FROM {schema}.facts")

    listed: Any = await syncline.answer("graph delete", graph.slug, "--dry-run")
    going = {part["name"] for part in listed["parts"] if not part["stays"]}
    assert {f"{schema}.facts", f"{schema}.sync_state", points, graph.slug} <= going
    assert listed["blockers"] == [f"view {schema}.theirs depends on its tables"]
    refused = await syncline("graph", "delete", graph.slug, "--yes", "--reason", "moved")
    assert (refused.status, "theirs" in refused.err) == (2, True)
    assert (await lab.services.graphs.get(graph.slug)).status is GraphStatus.ARCHIVED

    await asked(lab, "graph", f"DROP VIEW {schema}.theirs")
    target = lab.services.target_schema(graph).store
    target.owner_role = "pg_monitor"  # a role that has nothing
    refused = await syncline("graph", "delete", graph.slug, "--yes", "--reason", "moved")
    assert (refused.status, "SYNCLINE_OWNER_ROLE" in refused.err) == (2, True)
    target.owner_role = None
    await asked(lab, "graph", f"CREATE TABLE {schema}.notes ()")
    unanswered = await syncline("graph", "delete", graph.slug, "--reason", "moved")
    assert (unanswered.status, points in unanswered.err) == (1, True)
    assert await store.count(points) == 3
    done: Any = await syncline.answer("graph delete", graph.slug, "--yes", "--reason", "moved")
    assert done["deleted"]
    with pytest.raises(GraphNotFound):
        await lab.services.graphs.get(graph.slug)
    assert await find_schedule(lab.client, graph.slug) is None
    assert await store.count(points) == 0
    assert await triggers(lab, graph) == 0
    assert await asked(lab, "write", f"SELECT count(*) FROM {schema}.write_facts") == 3
    left = f"SELECT array_agg(relname::text) FROM pg_class WHERE relnamespace = to_regnamespace('{schema}')"
    assert await asked(lab, "graph", left) == ["notes"]
    page: Any = await syncline.answer("graph audit", "--limit", "1")
    [entry] = page["entries"]
    assert (entry["graph"], entry["action"], entry["why"]) == (graph.slug, "delete", "moved")


@pytest.mark.parametrize("keep_data", [False, *further(True)])
async def test_delete_graph_is_finished_after_a_death_at_each_step(lab: SyncLab, keep_data: bool) -> None:
    """Whatever step it died at, the record is there, and the same call ends it."""
    graph = await filled(lab)
    services = lab.services
    graph = await services.graphs.update(graph.id, GraphChanges(status=GraphStatus.ARCHIVED))

    async def nothing() -> None:
        """There is no Schedule."""

    class Died(Exception):
        pass

    for dies_at in (*STEPS, None):

        def step(name: str, dies_at: str | None = dies_at) -> None:
            if name == dies_at:
                raise Died

        deleting = delete_graph(
            services,
            await services.graphs.get(graph.id),
            await map_of(services, graph),
            keep_data=keep_data,
            actor=ACTOR,
            remove_schedule=nothing,
            on_step=step,
        )
        if dies_at is None:
            assert (await deleting).deleted
        else:
            with pytest.raises(Died):
                await deleting
    facts = f"SELECT to_regclass('{graph.schema_name}.facts') IS NOT NULL"
    state = f"SELECT to_regclass('{graph.schema_name}.sync_state') IS NOT NULL"
    assert (await asked(lab, "graph", facts), await asked(lab, "graph", state)) == (keep_data, False)
    assert await services.vector_store(None).count(f"{graph.qdrant_prefix}facts") == (3 if keep_data else 0)
    if not keep_data:
        assert not await asked(lab, "graph", f"SELECT to_regnamespace('{graph.schema_name}') IS NOT NULL")
    # It can be added again, in the same place.
    again = await lab.add_graph("default", prepare=True, slug=graph.slug)
    assert (await lab.run(again)).result.status == "drained"
    assert await asked(lab, "graph", f"SELECT count(*) FROM {graph.schema_name}.facts") == 3


async def test_graph_rename_moves_the_schedule_with_its_pause(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await filled(lab)
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    assert (await syncline("schedule", "pause", graph.slug, "--reason", "for now")).status == 0
    other = await lab.add_graph("default")
    taken = await syncline("graph", "rename", graph.slug, other.slug)
    assert (taken.status, "another graph has it" in taken.err) == (2, True)

    slug = lab.unique("renamed")
    renamed: Any = await syncline.answer("graph rename", graph.slug, slug, "--reason", "new name")
    assert (renamed["slug"], renamed["id"], renamed["schema_name"]) == (
        slug,
        str(graph.id),
        graph.schema_name,
    )
    assert await find_schedule(lab.client, graph.slug) is None
    found = await find_schedule(lab.client, slug)
    assert found is not None
    assert found.paused
    assert "for now" in (found.note or "")
    result = await lab.run(await lab.services.graphs.get(slug))
    assert result.graph.slug == slug
    page: Any = await syncline.answer("graph audit", slug, "--limit", "1")
    assert page["entries"][0]["fields"] == [f"{graph.slug} -> {slug}"]


async def test_refuse_open_runs_names_the_run_and_its_end(lab: SyncLab) -> None:
    gate = asyncio.Event()

    async def cycle(context: SyncContext) -> SyncResult:
        await gate.wait()
        return sync_result()

    graph = await lab.add_graph(FakeProvider(lab.unique("gated"), cycle=cycle))
    run = await lab.start(graph)

    async def refused() -> bool:
        try:
            await refuse_open_runs(lab.client, graph.slug, seconds=0)
        except InputInvalid as error:
            return run.id in str(error)
        return False

    await eventually(refused)
    gate.set()
    await run.result()
    await refuse_open_runs(lab.client, graph.slug)
