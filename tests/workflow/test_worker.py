"""The worker as a process: how it starts, refuses to start, drains and is measured."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest, RemoveSearchAttributesRequest
from temporalio.common import SearchAttributeKey
from temporalio.testing import WorkflowEnvironment

from syncline import names
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.control.workers import WorkerRepository
from syncline.devstack.temporal_server import temporal_binary
from syncline.errors import ConfigurationError, TemporalUnavailable
from syncline.temporal.client import connect, missing_search_attributes, register_search_attributes
from syncline.testing.lab import Run, SyncLab, eventually
from syncline.testing.worker_process import WorkerProcess, environment_of
from tests.kit.cases import further
from tests.kit.command_line import CommandLine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(services: Services, temporal_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return environment_of(services.settings, temporal_environment, tmp_path) | {
        "SYNCLINE_QDRANT_PATH": str(tmp_path / "qdrant-of-the-worker"),
        # The runs of a test are those that it starts: its graphs get no Schedules meanwhile.
        "SYNCLINE_RECONCILE_SECONDS": "86400",
    }


@asynccontextmanager
async def running(environment: dict[str, str], **more: str) -> AsyncIterator[WorkerProcess]:
    async with WorkerProcess.running(ROOT / "worker.py", environment | more) as worker:
        yield worker


async def test_a_worker_serves_logs_a_line_a_cycle_and_drains_on_sigterm(
    idle_lab: SyncLab, environment: dict[str, str]
) -> None:
    """Both branches log the same fields, and an error of ours is one line without a traceback."""
    graphs = [
        await idle_lab.add_graph("default", prepare=True),
        await idle_lab.add_graph("acme-sync", prepare=True),
    ]
    refused = await idle_lab.add_graph(
        "acme-sync", composition={"sync": {"provider": "acme-sync", "on_missing": "fail"}}
    )
    async with running(environment) as worker:
        await worker.logs('"worker ready"')
        assert idle_lab.task_queue in worker.said
        assert '"default"' in worker.said
        for graph, provider in zip(graphs, ("default", None), strict=True):
            assert (await idle_lab.run(graph)).provider_id == provider
        fleet = WorkerRepository(idle_lab.services.control)
        [told] = await fleet.list()
        assert told.identity.endswith(f":{worker.process.pid}")
        assert (told.task_queue, [found.id for found in told.providers]) == (idle_lab.task_queue, ["default"])
        await idle_lab.failure(await idle_lab.start(refused))
        await worker.logs('"kind": "ProviderMissing"')
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ended() == 0
        assert await fleet.list() == []
    assert "worker draining" in worker.said
    assert "worker stopped" in worker.said
    assert "Traceback" not in worker.said
    lines = [json.loads(line) for line in worker.said.splitlines() if '"cycle ended"' in line]
    assert [line["graph"] for line in lines] == [graph.slug for graph in graphs]
    assert [line["provider"] for line in lines] == ["default", names.FALLBACK_PROVIDER]
    assert lines[0].keys() == lines[1].keys() >= {"graph", "run_id", "provider", "rows", "failures", "status"}


@pytest.mark.long("test_a_worker_serves_logs_a_line_a_cycle_and_drains_on_sigterm")
async def test_a_plugin_is_polled_for_on_a_queue_of_its_own(
    idle_lab: SyncLab, environment: dict[str, str], tmp_path: Path
) -> None:
    info = tmp_path / "acme_wheel-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-wheel\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(
        "[syncline.providers]\nacme = syncline.testing.providers:FakeProvider\n"
    )
    graph = await idle_lab.add_graph("fake")
    async with running(environment, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}") as worker:
        await worker.logs('"worker ready"')
        run = await idle_lab.start(graph)
        served = (await run.result()).result.served
        queues = {
            event.activity_task_scheduled_event_attributes.task_queue.name
            for event in (await run.fetch_history()).events
        }
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ended() == 0
    assert served is not None
    assert served.distribution == "acme-wheel 2.0"
    assert served.worker.endswith(f":{worker.process.pid}")
    assert f"{idle_lab.task_queue}/providers/fake" in queues


@pytest.mark.long("test_a_worker_serves_logs_a_line_a_cycle_and_drains_on_sigterm")
async def test_a_worker_makes_the_reconcilers_schedule_and_keeps_an_operators_pause(
    idle_lab: SyncLab, environment: dict[str, str]
) -> None:
    handle = idle_lab.client.get_schedule_handle(names.reconcile_schedules_id(idle_lab.task_queue))
    async with running(environment) as worker:
        await worker.logs('"worker ready"')
        assert '"reconciler": "created"' in worker.said
        assert not (await handle.describe()).schedule.state.paused
    await handle.pause(note="not now")
    async with running(environment, SYNCLINE_RECONCILE_SECONDS="1") as worker:
        await worker.logs('"worker ready"')
        assert '"reconciler": "updated"' in worker.said
        described = await handle.describe()
        assert described.schedule.spec.intervals[0].every.total_seconds() == 1
        assert (described.schedule.state.paused, described.schedule.state.note) == (True, "not now")

        await handle.unpause()
        graph = await idle_lab.add_graph("default", prepare=True)
        await worker.logs('"schedules reconciled"')
        await worker.logs(f'"graph": "{graph.slug}"')  # its cycle ended
    await handle.delete()


@pytest.mark.long("test_a_worker_serves_logs_a_line_a_cycle_and_drains_on_sigterm")
async def test_workers_that_start_together_all_start(environment: dict[str, str]) -> None:
    async with running(environment) as first, running(environment) as second:
        await asyncio.gather(first.logs('"worker ready"'), second.logs('"worker ready"'))


@asynccontextmanager
async def held_up(lab: SyncLab, graph: Graph) -> AsyncIterator[None]:
    """A cycle of the graph that starts now waits for a table until this ends."""
    target = await asyncpg.connect(lab.services.settings.graph_dsn.get_secret_value())
    try:
        async with target.transaction():
            await target.execute(f"LOCK TABLE {graph.schema_name}.sync_state")
            yield
    finally:
        await target.close()


async def cycling(run: Run) -> None:
    """Return once the run's cycle has begun."""

    async def begun() -> bool:
        pending = (await run.describe()).raw_description.pending_activities
        return any(
            activity.activity_type.name == names.SYNC_CYCLE and activity.HasField("last_started_time")
            for activity in pending
        )

    await eventually(begun)


@pytest.mark.long("test_a_worker_serves_logs_a_line_a_cycle_and_drains_on_sigterm")
async def test_a_running_cycle_may_finish_while_the_worker_drains(
    idle_lab: SyncLab, environment: dict[str, str]
) -> None:
    graph = await idle_lab.add_graph("default", prepare=True)
    async with running(environment) as worker:
        await worker.logs('"worker ready"')
        async with held_up(idle_lab, graph):
            run = await idle_lab.start(graph)
            await cycling(run)
            worker.process.send_signal(signal.SIGTERM)
            await worker.logs("worker draining")
        assert await worker.ended() == 0
    assert '"status": "drained"' in worker.said
    assert "cycle cancelled" not in worker.said


@pytest.mark.long("test_a_worker_serves_logs_a_line_a_cycle_and_drains_on_sigterm")
async def test_a_second_signal_ends_the_worker_at_once(
    idle_lab: SyncLab, environment: dict[str, str]
) -> None:
    graph = await idle_lab.add_graph("default", prepare=True)
    async with running(environment, SYNCLINE_GRACEFUL_SHUTDOWN_SECONDS="600") as worker:
        await worker.logs('"worker ready"')
        async with held_up(idle_lab, graph):
            run = await idle_lab.start(graph)
            await cycling(run)
            worker.process.send_signal(signal.SIGTERM)
            await worker.logs("worker draining")
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.ended() == -signal.SIGTERM
        await run.terminate()


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("changed", "status", "named"),
    [
        ({"SYNCLINE_WRITE_DSN": None}, 2, "SYNCLINE_WRITE_DSN"),
        ({"TEMPORAL_NAMESPACE": "nowhere"}, 1, "namespace 'nowhere'"),
        *further(
            ({"SYNCLINE_BATCH_ROWS": "many"}, 2, "SYNCLINE_BATCH_ROWS"),
            ({"SYNCLINE_METRICS_ADDRESS": "nowhere"}, 2, "SYNCLINE_METRICS_ADDRESS"),
            ({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, 1, "Temporal at 127.0.0.1:1"),
            ({"TEMPORAL_PROFILE": "nowhere"}, 2, "Profile 'nowhere' not found"),
        ),
    ],
)
async def test_a_worker_that_cannot_start_says_why_in_one_sentence(
    environment: dict[str, str], changed: dict[str, str | None], status: int, named: str
) -> None:
    merged = {key: value for key, value in (environment | changed).items() if value is not None}
    async with running(merged) as worker:
        assert await worker.ended() == status, worker.said
    assert named in worker.said
    assert "Traceback" not in worker.said
    assert len(worker.said.splitlines()) == 1


@pytest.mark.long("test_a_worker_serves_logs_a_line_a_cycle_and_drains_on_sigterm")
async def test_a_namespace_without_our_search_attributes_is_refused_with_the_commands_that_help(
    environment: dict[str, str], tmp_path: Path
) -> None:
    bare = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(temporal_binary()), dev_server_log_level="error"
    )
    async with bare:
        address = bare.client.service_client.config.target_host
        async with running(environment, TEMPORAL_ADDRESS=address) as worker:
            assert await worker.ended() == 2
        assert "temporal operator search-attribute create" in worker.said
        assert "--name SynclineFallback --type Bool" in worker.said

        doctor = CommandLine({"TEMPORAL_ADDRESS": address}, tmp_path)
        diagnosis = await doctor.answer("doctor", "--timeout", "1", status=1)
        checks = {check["name"]: check for check in diagnosis["checks"]}
        assert checks["search attributes"]["status"] == "fail"
        assert "--name SynclineFallback --type Bool" in checks["search attributes"]["fix"]
        assert (checks["namespace"]["status"], checks["clock"]["status"]) == ("ok", "skip")

        client = await connect(address=address)
        assert await missing_search_attributes(client) == names.SEARCH_ATTRIBUTES.keys()
        assert await register_search_attributes(client) == names.SEARCH_ATTRIBUTES.keys()

        async def registered() -> bool:
            return not await missing_search_attributes(client)

        await eventually(registered)
        assert await register_search_attributes(client) == set()


async def full_server() -> WorkflowEnvironment:
    """Start a server whose namespace has attributes of others, and too little room for ours."""
    return await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(temporal_binary()),
        dev_server_log_level="error",
        search_attributes=[
            *(SearchAttributeKey.for_int(f"TheirNumber{n}") for n in range(2)),
            *(SearchAttributeKey.for_keyword(f"TheirWord{n}") for n in range(4)),
        ],
    )


async def test_a_namespace_without_room_for_our_search_attributes_says_so_and_is_left_as_it_was(
    tmp_path: Path,
) -> None:
    """What is free is counted first, by type; removing what takes the room is enough."""
    async with await full_server() as full:
        address = full.client.service_client.config.target_host
        client = await connect(address=address)

        async def registered() -> set[str]:
            found = await client.operator_service.list_search_attributes(
                ListSearchAttributesRequest(namespace=client.namespace)
            )
            return set(found.custom_attributes)

        before = await registered()
        assert len(before) == 6
        with pytest.raises(ConfigurationError) as raised:
            await register_search_attributes(client)
        assert "it needs 2 more of type Int (SynclineFailures, SynclineRows) and 1 of 3 are free" in str(
            raised.value
        )
        assert "(taken by TheirNumber0, TheirNumber1)" in str(raised.value)
        assert "Keyword" not in str(raised.value)
        assert await registered() == before
        listed = CommandLine({"TEMPORAL_ADDRESS": address}, tmp_path)
        said = await listed("graph", "list")
        assert (said.status, "2 more of type Int" in said.err) == (2, True)

        await client.operator_service.remove_search_attributes(
            RemoveSearchAttributesRequest(namespace=client.namespace, search_attributes=["TheirNumber0"])
        )

        async def has_room() -> bool:
            return "TheirNumber0" not in await registered()

        await eventually(has_room)
        assert await register_search_attributes(client) == names.SEARCH_ATTRIBUTES.keys()


@pytest.mark.long(
    "test_a_namespace_without_room_for_our_search_attributes_says_so_and_is_left_as_it_was",
    "test_a_worker_that_cannot_start_says_why_in_one_sentence",
)
async def test_a_worker_of_a_namespace_without_room_says_so_and_ends(environment: dict[str, str]) -> None:
    async with await full_server() as full:
        address = full.client.service_client.config.target_host
        async with running(environment, TEMPORAL_ADDRESS=address) as worker:
            assert await worker.ended() == 2
        assert "has no room for Syncline's search attributes" in worker.said
        assert "search-attribute create" not in worker.said


async def test_a_server_that_does_not_answer_is_named(unique: Callable[[str], str]) -> None:
    with pytest.raises(
        TemporalUnavailable, match=r"Temporal at 127.0.0.1:1, namespace 'default': Connection refused"
    ):
        await connect(address="127.0.0.1:1")
