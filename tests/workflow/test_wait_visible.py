"""`WaitVisible`: a wait ends when it is visible, or says why it is not; and wakes a graph that sleeps."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import asyncpg
import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from syncline import names
from syncline.control.graphs import Graph, GraphChanges
from syncline.messages.base import GraphStatus
from syncline.messages.visibility import Visibility, VisibilityState, WaitVisibleInput
from syncline.temporal.client import GRAPH
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.testing.lab import SyncLab, eventually
from tests.kit.command_line import CommandLine

SELDOM = {"every_seconds": 2_592_000, "notify": False}
NODE = "INSERT INTO write_nodes (id, concept) VALUES ($1, 'c')"
EDGE = (
    "INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type)"
    " VALUES ('e', 'a', 'none', 'related')"
)


@pytest.fixture
def lab(shared_lab: SyncLab) -> SyncLab:
    """One laboratory for the module; no Schedule comes by itself, and no writer is heard."""
    return shared_lab


@asynccontextmanager
async def connected(dsn: str, graph: Graph) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, server_settings={"search_path": graph.schema_name})
    try:
        yield connection
    finally:
        await connection.close()


def writer(lab: SyncLab, graph: Graph) -> AbstractAsyncContextManager[asyncpg.Connection]:
    return connected(lab.services.settings.write_dsn.get_secret_value(), graph)


async def asleep(lab: SyncLab) -> Graph:
    """A graph that nothing runs unless it is woken."""
    graph = await lab.add_graph("default", prepare=True, schedule=SELDOM)
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph


async def written(lab: SyncLab, graph: Graph, *statements: str) -> str:
    async with writer(lab, graph) as connection, connection.transaction():
        for statement in statements:
            await connection.execute(statement)
        return str(await connection.fetchval("SELECT syncline.token()"))


async def waited(lab: SyncLab, graph: Graph, token: str, **fields: object) -> Visibility:
    given = WaitVisibleInput.model_validate({"graph": graph.slug, "token": token, "seconds": 20, **fields})
    return await lab.client.execute_workflow(
        names.WAIT_VISIBLE, given, id=lab.unique("wait"), task_queue=lab.task_queue, result_type=Visibility
    )


async def keys(lab: SyncLab, graph: Graph) -> set[str]:
    async with connected(lab.services.settings.graph_dsn.get_secret_value(), graph) as connection:
        return {row["key"] for row in await connection.fetch("SELECT key FROM nodes")}


async def test_wait_wakes_a_graph_that_sleeps(lab: SyncLab) -> None:
    graph = await asleep(lab)
    token = await written(lab, graph, NODE.replace("$1", "'n'"))
    answer = await waited(lab, graph, token, vectors=True)
    assert (answer.visible, answer.vectors, answer.state, answer.reason) == (
        True,
        True,
        VisibilityState.VISIBLE,
        None,
    )
    assert await keys(lab, graph) == {"n"}
    # Of a transaction that wrote nothing, too, although no cycle has anything to do.
    assert (await waited(lab, graph, await written(lab, graph))).visible


@pytest.mark.long("test_command_waits_by_temporal_alone")
async def test_wait_says_what_is_parked_and_does_not_hang(lab: SyncLab) -> None:
    graph = await asleep(lab)
    answer = await waited(lab, graph, await written(lab, graph, NODE.replace("$1", "'a'"), EDGE))
    assert (answer.visible, answer.state) == (False, VisibilityState.PARKED)
    assert answer.waited_seconds < 20


async def test_wait_says_which_open_transaction_holds_it_back(lab: SyncLab) -> None:
    graph = await asleep(lab)
    async with writer(lab, graph) as slow, slow.transaction():
        await slow.execute("SET LOCAL application_name = 'slow writer'")
        await slow.execute(NODE, "s")
        token = await written(lab, graph, NODE.replace("$1", "'n'"))
        answer = await waited(lab, graph, token, seconds=0.5)
        assert (answer.visible, answer.state) == (False, VisibilityState.PENDING)
        assert "slow writer" in str(answer.reason)
        own = await slow.fetchval("SELECT syncline.token()")
        assert "still open" in str((await waited(lab, graph, own, seconds=0)).reason)


async def test_wait_says_that_a_graph_is_paused(lab: SyncLab) -> None:
    graph = await asleep(lab)
    await lab.services.graphs.update(graph.slug, GraphChanges(status=GraphStatus.PAUSED))
    answer = await waited(lab, graph, await written(lab, graph, NODE.replace("$1", "'n'")))
    assert (answer.visible, answer.state) == (False, VisibilityState.PAUSED)


@pytest.mark.long("test_command_waits_by_temporal_alone")
async def test_wait_for_a_foreign_token_is_refused(lab: SyncLab) -> None:
    graph = await asleep(lab)
    await waited(lab, graph, await written(lab, graph, NODE.replace("$1", "'n'")))
    for token in ("nonsense", "1.2.3.4.5"):
        with pytest.raises(WorkflowFailureError) as failed:
            await waited(lab, graph, token)
        assert isinstance(failed.value.cause, ActivityError)
        assert isinstance(failed.value.cause.cause, ApplicationError)
        assert failed.value.cause.cause.type == "TokenRefused"


async def test_wait_goes_on_with_another_worker(idle_lab: SyncLab) -> None:
    lab = idle_lab

    async def begun() -> bool:
        async with connected(lab.services.settings.graph_dsn.get_secret_value(), graph) as connection:
            listening = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name LIKE '%waits' AND datname = current_database()"
            )
            return bool(await connection.fetchval(listening))

    async with AsyncExitStack() as held:
        async with lab.worker():
            graph = await asleep(lab)
            slow = await held.enter_async_context(writer(lab, graph))
            transaction = slow.transaction()
            await transaction.start()
            await slow.execute(NODE, "s")
            token = str(await slow.fetchval("SELECT syncline.token()"))
            wait = asyncio.create_task(waited(lab, graph, token, seconds=60))
            await eventually(begun)
        assert not wait.done()
        await transaction.commit()
        async with lab.worker():
            assert (await wait).visible


async def test_command_waits_by_temporal_alone(
    lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    graph, syncline = await asleep(lab), temporal_only(lab)
    token = await written(lab, graph, NODE.replace("$1", "'a'"))
    said = await syncline("wait", graph.slug, token)
    assert (said.status, said.err) == (0, "")
    assert "visible" in said.out
    # Its answer needs no workflow task.
    runs = f"WorkflowType = '{names.WAIT_VISIBLE}' AND {GRAPH.name} = '{graph.slug}'"
    assert (await lab.client.count_workflows(runs)).count == 0
    orphan = await written(lab, graph, EDGE)
    answer = await syncline.answer("wait", graph.slug, orphan, "--vectors", status=1)
    assert isinstance(answer, dict)
    assert answer["state"] == "parked"
    refused = await syncline("wait", graph.slug, "1.2.3.4.5")
    assert refused.status == 2
    assert "another database" in refused.err


async def test_many_waits_ask_the_write_db_nothing_and_the_graph_db_little(lab: SyncLab) -> None:
    """All are answered by the statements of one, and one run is started for all."""
    graph = await asleep(lab)
    async with writer(lab, graph) as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(NODE, "s")
        tokens = [await written(lab, graph, NODE.replace("$1", f"'n{number}'")) for number in range(20)]
        waits = [asyncio.create_task(waited(lab, graph, token)) for token in tokens]
        await asyncio.sleep(1)
        assert not any(wait.done() for wait in waits)
        await transaction.commit()
    answers = await asyncio.gather(*waits)
    assert all(answer.visible for answer in answers)
    assert len(await keys(lab, graph)) == 21
