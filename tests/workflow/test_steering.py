"""Requests that meet in one task of the server's scheduler: it keeps the later patch, and nothing is lost."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from temporalio.api.workflowservice.v1 import PatchScheduleRequest, PatchScheduleResponse
from temporalio.client import Client, ScheduleDescription, ScheduleHandle, ScheduleOverlapPolicy
from temporalio.service import WorkflowService

from syncline import names
from syncline.control.graphs import Graph
from syncline.errors import ConfigurationError, TemporalUnavailable
from syncline.temporal.schedules import steer
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.trigger import trigger_run
from syncline.testing.lab import SyncLab

DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def lost(idle_lab: SyncLab) -> Iterator[list[PatchScheduleRequest]]:
    """The patches that the server is to lose, as it does those that a later one overwrites: the first, alone."""
    service: WorkflowService = idle_lab.client.workflow_service
    send, seen = service.patch_schedule, list[PatchScheduleRequest]()

    async def losing(request: PatchScheduleRequest, **options: object) -> PatchScheduleResponse:
        seen.append(request)
        if len(seen) == 1:
            return PatchScheduleResponse()
        return await send(request, **options)  # type: ignore[arg-type]

    with patch.object(service, "patch_schedule", losing):
        yield seen


async def daily(lab: SyncLab) -> tuple[Graph, ScheduleHandle]:
    graph = await lab.add_graph(schedule={"cron": "0 0 * * *"})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph, lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))


def starts(found: ScheduleDescription) -> int:
    """Number of runs that were started or wait for the open one."""
    info = found.raw_description.info
    return int(info.action_count + info.buffer_size)


Act = Callable[[Client, Graph, str], Awaitable[object]]


async def by_command(client: Client, graph: Graph, _: str) -> None:
    await steer.start_run(client, client.get_schedule_handle(names.sync_schedule_id(graph.slug)))


async def by_change(client: Client, graph: Graph, task_queue: str) -> None:
    assert await trigger_run(client, graph.slug, task_queue=task_queue) == "started"


@pytest.mark.parametrize("act", [by_command, by_change])
async def test_a_trigger_that_the_server_lost_is_repeated(
    idle_lab: SyncLab, lost: list[PatchScheduleRequest], act: Act
) -> None:
    graph, handle = await daily(idle_lab)
    await act(idle_lab.client, graph, idle_lab.task_queue)
    assert (len(lost), starts(await handle.describe())) == (2, 1)


async def test_a_lost_trigger_behind_an_open_run_is_repeated(
    idle_lab: SyncLab, lost: list[PatchScheduleRequest]
) -> None:
    _, handle = await daily(idle_lab)
    await steer.start_run(idle_lab.client, handle, ScheduleOverlapPolicy.BUFFER_ONE)
    lost.clear()
    await steer.start_run(idle_lab.client, handle, ScheduleOverlapPolicy.BUFFER_ONE)
    assert (len(lost), starts(await handle.describe())) == (2, 2)
    # Its own policy skips: nothing is repeated for that.
    await steer.start_run(idle_lab.client, handle)
    assert (len(lost), starts(await handle.describe())) == (3, 2)


@pytest.mark.parametrize("days", [1, 3])
async def test_a_backfill_that_the_server_lost_is_repeated(
    idle_lab: SyncLab, lost: list[PatchScheduleRequest], days: int
) -> None:
    graph, handle = await daily(idle_lab)
    await steer.backfill(idle_lab.client, graph.slug, DAY, DAY + timedelta(days=days - 1))
    assert (len(lost), starts(await handle.describe())) == (2, days)


async def test_a_backfill_that_a_trigger_overwrote_is_repeated(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, handle = await daily(idle_lab)
    # A run is open, so that the backfill's runs wait and their times cannot be read.
    await steer.start_run(idle_lab.client, handle)
    service = idle_lab.client.workflow_service
    send, seen = service.patch_schedule, list[PatchScheduleRequest]()

    async def overwritten(request: PatchScheduleRequest, **options: object) -> PatchScheduleResponse:
        seen.append(request)
        if len(seen) == 1:
            other = PatchScheduleRequest(
                namespace=request.namespace, schedule_id=request.schedule_id, request_id="wake"
            )
            other.patch.trigger_immediately.overlap_policy = ScheduleOverlapPolicy.BUFFER_ONE.value
            return await send(other)
        return await send(request, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(service, "patch_schedule", overwritten)
    await steer.backfill(idle_lab.client, graph.slug, DAY, DAY)
    assert starts(await handle.describe()) == 3


async def test_a_backfill_of_no_time_is_refused(idle_lab: SyncLab) -> None:
    graph, _ = await daily(idle_lab)
    with pytest.raises(ConfigurationError, match="has no time from 2026-01-01T00:00:01"):
        await steer.backfill(
            idle_lab.client, graph.slug, DAY + timedelta(seconds=1), DAY + timedelta(seconds=2)
        )


async def test_a_schedule_that_takes_no_trigger_is_told(
    idle_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, _ = await daily(idle_lab)

    async def swallowed(request: PatchScheduleRequest, **_: object) -> PatchScheduleResponse:
        return PatchScheduleResponse()

    monkeypatch.setattr(idle_lab.client.workflow_service, "patch_schedule", swallowed)
    with pytest.raises(TemporalUnavailable, match="has not taken a request in 5 attempts"):
        await trigger_run(idle_lab.client, graph.slug, task_queue=idle_lab.task_queue)


@pytest.mark.long("test_a_trigger_that_the_server_lost_is_repeated")
async def test_a_pause_a_backfill_and_wakes_that_meet_all_act(idle_lab: SyncLab) -> None:
    graphs = [await daily(idle_lab) for _ in range(4)]

    async def meet(graph: Graph, handle: ScheduleHandle) -> None:
        client = idle_lab.client
        await asyncio.gather(
            steer.pause(client, graph.slug, "maintenance"),
            steer.backfill(client, graph.slug, DAY, DAY + timedelta(days=2)),
            steer.start_run(client, handle, ScheduleOverlapPolicy.BUFFER_ONE),
        )
        found = await handle.describe()
        assert (found.schedule.state.paused, found.schedule.state.note) == (True, "maintenance")
        # The backfill's three, whatever the wake found of them.
        assert starts(found) >= 3
        await asyncio.gather(
            steer.resume(client, graph.slug),
            steer.start_run(client, handle, ScheduleOverlapPolicy.BUFFER_ONE),
        )
        assert not (await handle.describe()).schedule.state.paused

    await asyncio.gather(*(meet(graph, handle) for graph, handle in graphs))
