"""A shadow follows its graph's runs: seen beside them, never in their way, and promoted by a command."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import asyncpg
import pytest

from syncline import names
from syncline.control.graphs import GraphChanges
from syncline.engine import run_cycle
from syncline.messages.sync import CycleStatus, SyncGraphResult, SyncResult
from syncline.provider import NullMeter, SyncContext
from syncline.temporal.overview import overview
from syncline.temporal.runs import StartedBy, runs_of
from syncline.testing.lab import Run, SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.command_line import CommandLine

SHADOWED = {"sync": {"provider": "live"}, "shadow": {"provider": "acme"}}


class Counting(NullMeter):
    """Remembers which graphs were counted."""

    def __init__(self) -> None:
        self.graphs: list[str] = []

    def count(self, name: str, value: int, **attributes: str) -> None:
        if name == "cycles":
            self.graphs.append(attributes["graph"])


async def louder(context: SyncContext) -> SyncResult:
    result = await run_cycle(context)
    async with context.target.store.driver() as connection:
        await connection.execute(f'UPDATE "{context.target.schema}".nodes SET concept = upper(concept)')
    return result


class WithNotes(FakeProvider):
    """Its cycles need a table that it makes."""

    async def prepare(self, context: SyncContext) -> None:
        async with context.target.store.driver() as connection:
            await connection.execute(
                f'CREATE TABLE IF NOT EXISTS "{context.target.schema}".notes (at timestamptz)'
            )


async def noted(context: SyncContext) -> SyncResult:
    async with context.target.store.driver() as connection:
        await connection.execute(f'INSERT INTO "{context.target.schema}".notes VALUES (now())')
    return await run_cycle(context)


async def shadowed(lab: SyncLab, shadow: FakeProvider | None) -> None:
    for provider in (FakeProvider("live", cycle=run_cycle), shadow):
        if provider is not None:
            lab.services.registry.register("sync", provider, "lab 1.0")
    await lab.services.prepare_control()
    await lab.services.graphs.update("kg", GraphChanges(composition=SHADOWED))


async def written(lab: SyncLab, sql: str) -> None:
    dsn = lab.services.settings.write_dsn.get_secret_value()
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "kg"})
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def run(lab: SyncLab) -> tuple[Run, SyncGraphResult]:
    started = await lab.start(await lab.services.graphs.get("kg"))
    return started, await started.result()


def follower(lab: SyncLab) -> Run:
    """Return the shadow's run that is open, or was the last one."""
    return lab.client.get_workflow_handle(names.shadow_workflow_id("kg"), result_type=SyncGraphResult)


@pytest.fixture(autouse=True)
async def no_shadow_is_left(kg: SyncLab) -> None:
    """Shadows of all tests have one workflow id, of which one run is open at a time."""

    async def ended() -> bool:
        query = f'WorkflowId="{names.shadow_workflow_id("kg")}" AND CloseTime IS NULL'
        for execution in [found async for found in kg.client.list_workflows(query)]:
            await kg.client.get_workflow_handle(execution.id, run_id=execution.run_id).terminate()
        return (await kg.client.count_workflows(query)).count == 0

    await eventually(ended)


@pytest.mark.long("test_commands_compare_and_promote")
async def test_the_shadow_follows_the_live_run_and_passes_for_none(kg: SyncLab) -> None:
    meter = kg.services.meter = Counting()
    await shadowed(kg, FakeProvider("acme", cycle=louder))
    await written(kg, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'a node')")
    live, result = await run(kg)
    shadow = follower(kg)
    followed = await shadow.result()
    assert (result.graph.slug, result.provider_id) == ("kg", "live")
    assert (followed.graph.slug, followed.provider_id) == ("kg/shadow", "acme")
    assert (followed.graph.id, followed.result.rows) == (result.graph.id, 1)
    assert (await kg.attributes(shadow))["SynclineGraph"] == "kg/shadow"
    config = (await shadow.describe()).raw_description.execution_config
    assert config.workflow_execution_timeout.ToTimedelta() == timedelta(hours=3)
    assert "CHILD_WORKFLOW_EXECUTION_STARTED" in await kg.events(live)
    assert sorted(meter.graphs) == ["kg", "kg/shadow"]

    async def listed() -> bool:
        runs = await runs_of(kg.client, "kg/shadow", limit=10)
        return bool(runs) and runs[0].run_id == (await shadow.describe()).run_id

    await eventually(listed)
    seen = {graph.graph for graph in await overview(kg.client)}
    assert "kg" in seen
    assert "kg/shadow" not in seen
    assert live.id in {listed.workflow_id for listed in await runs_of(kg.client, "kg", limit=10)}
    assert all(listed.graph == "kg" for listed in await runs_of(kg.client, "kg", limit=10))
    [newest, *_] = await runs_of(kg.client, "kg/shadow", limit=10)
    assert newest.started_by is StartedBy.SHADOW


async def test_shadow_of_a_provider_with_tables_of_its_own_is_prepared(kg: SyncLab) -> None:
    await shadowed(kg, WithNotes("acme", cycle=noted))
    await written(kg, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'a node')")
    await run(kg)
    followed = await follower(kg).result()
    assert (followed.provider_id, followed.result.status, followed.result.rows) == ("acme", "drained", 1)


@pytest.mark.long("test_commands_compare_and_promote")
async def test_the_live_graph_waits_for_no_shadow_and_one_is_open_at_a_time(kg: SyncLab) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(context: SyncContext) -> SyncResult:
        begun.set()
        await release.wait()
        return await run_cycle(context)

    await shadowed(kg, FakeProvider("acme", cycle=slow))
    await run(kg)
    async with asyncio.timeout(20):
        await begun.wait()
    shadow = follower(kg)
    first = (await shadow.describe()).run_id
    await written(kg, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'a node')")
    second, result = await run(kg)
    assert result.result.rows == 1
    assert "START_CHILD_WORKFLOW_EXECUTION_FAILED" in await kg.events(second)
    assert (await shadow.describe()).run_id == first
    release.set()
    assert (await shadow.result()).result.rows == 1


@pytest.mark.long("test_commands_compare_and_promote")
async def test_a_shadow_that_fails_harms_nobody_and_follows_a_live_run_that_fails(kg: SyncLab) -> None:
    async def broken(context: SyncContext) -> SyncResult:
        return sync_result(error="column gone")

    await shadowed(kg, FakeProvider("acme", cycle=broken))
    _, result = await run(kg)
    assert result.result.drained
    failure = await kg.failure(follower(kg))
    assert (failure.type, "graph 'kg/shadow'" in str(failure)) == ("CycleFailed", True)

    composition = {"sync": {"provider": "acme"}, "shadow": {"provider": "live"}}
    await kg.services.graphs.update("kg", GraphChanges(composition=composition))
    async with kg.services.store("graph", None).driver() as connection:
        await connection.execute("DROP SCHEMA kg_shadow CASCADE")
    assert (await kg.failure(await kg.start(await kg.services.graphs.get("kg")))).type == "CycleFailed"
    assert (await follower(kg).result()).result.drained


async def test_a_shadow_whose_provider_nobody_has_is_held_and_never_falls_back(kg: SyncLab) -> None:
    await shadowed(kg, None)
    _, result = await run(kg)
    assert result.result.drained
    followed = await follower(kg).result()
    assert followed.result.status is CycleStatus.HELD
    assert followed.fallback is None
    assert followed.held is not None
    assert followed.held.provider_id == "acme"


async def test_commands_compare_and_promote(
    kg: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    syncline = temporal_only(kg)
    await shadowed(kg, FakeProvider("acme", cycle=louder))
    refused = await syncline("provider", "promote", "kg")
    assert (refused.status, "has not run yet" in refused.err) == (2, True), refused.err
    await written(kg, "INSERT INTO write_nodes (id, concept) VALUES ('n', 'a node')")
    await run(kg)
    await follower(kg).result()
    compared = await syncline("verify", "kg", "--shadow")
    assert compared.status == 1
    assert "nodes (rows) differ in concept: 1" in compared.out
    assert compared.out.splitlines()[-1].endswith(": 1 differ from the shadow")
    assert "nodes (rows), stale: n" in compared.out
    both = await syncline("verify", "kg", "--shadow", "--repair")
    assert (both.status, "exclude each other" in both.err) == (2, True)

    answer = await syncline.answer("provider promote", "kg", "--reason", "louder is better")
    assert isinstance(answer, dict)
    assert (answer["provider_id"], answer["shadow_provider_id"]) == ("acme", "live")
    shown = await syncline("providers")
    assert "kg/shadow" in shown.out
    # The graph goes on, and what was live follows it.
    await written(kg, "INSERT INTO write_nodes (id, concept) VALUES ('m', 'another')")
    _, result = await run(kg)
    followed = await follower(kg).result()
    assert (result.provider_id, result.result.rows) == ("acme", 1)
    assert (followed.provider_id, followed.result.rows) == ("live", 1)
    audit = await syncline("failures", "audit", "kg")
    assert "louder is better" in audit.out

    status = await syncline("status", "kg/shadow")
    assert status.status == 0, status.err
    assert "kg/shadow" in status.out
    assert (await syncline("parked", "kg/shadow")).status == 0
    dropped = await syncline(
        "graph", "set", "kg", "--composition", '{"sync": {"provider": "acme"}}', "--drop-shadow"
    )
    assert dropped.status == 0, dropped.err
    gone = await syncline("verify", "kg", "--shadow")
    assert (gone.status, "has not run yet" in gone.err) == (2, True)
    alone, _ = await run(kg)
    assert "START_CHILD_WORKFLOW_EXECUTION_INITIATED" not in await kg.events(alone)
