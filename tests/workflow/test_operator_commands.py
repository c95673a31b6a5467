"""`syncline status|runs|sync`: what an engineer on call sees and starts with Temporal alone."""

import asyncio
import io
import json
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console
from temporalio.client import Client

from activities.sync import SyncActivities
from syncline import names
from syncline.cli.following import Lines, Live
from syncline.control.graphs import Graph, GraphChanges
from syncline.errors import StoreUnavailable
from syncline.messages.base import GraphStatus
from syncline.messages.sync import (
    CycleProgress,
    CycleStatus,
    RunPhase,
    SyncGraphInput,
    SyncResult,
    SyncState,
    TableProgress,
    Waiting,
)
from syncline.provider import SyncContext
from syncline.temporal.runs import ListedRun, run_at_work
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.stalls import Pending, PendingRetry
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.command_line import CommandLine
from tests.workflow.test_carried_state import ScheduledRuns
from worker import create_worker

ROOT = Path(__file__).parents[2]


async def scheduled(lab: SyncLab, graph: Graph) -> None:
    """Give the graph a Schedule that does nothing by itself for a day."""
    daily = graph.model_copy(update={"schedule": graph.schedule.model_copy(update={"every_seconds": 86_400})})
    await ensure_schedule(lab.client, daily, task_queue=lab.task_queue)


async def triggered(lab: SyncLab, graph: Graph, *, ends: bool = True) -> None:
    """Have the graph's Schedule start a run, and wait for its end."""
    handle = lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))
    await handle.trigger()
    query = f'SynclineGraph="{graph.slug}" AND CloseTime IS {"NOT " if ends else ""}NULL'

    async def seen() -> bool:
        return (await lab.client.count_workflows(query)).count > 0

    await eventually(seen)


def failing(error: Exception | None = None) -> FakeProvider:
    async def cycle(context: SyncContext) -> SyncResult:
        if error is not None:
            raise error
        return sync_result(rows=2, error="column gone")

    return FakeProvider("failing", cycle=cycle)


async def test_every_graph_is_listed_with_what_it_is_doing_trouble_first(
    lab: SyncLab, syncline: CommandLine
) -> None:
    release = asyncio.Event()

    async def wait(context: SyncContext) -> SyncResult:
        await release.wait()
        return sync_result()

    well = await lab.add_graph(FakeProvider("well"))
    broken = await lab.add_graph(failing())
    fallen = await lab.add_graph("acme-sync", prepare=True)
    held = await lab.add_graph(composition={"sync": {"provider": "acme-sync", "on_missing": "hold"}})
    stopped = await lab.add_graph("well")
    asleep = await lab.add_graph("well", status="paused")
    busy = await lab.add_graph(FakeProvider("busy", cycle=wait))
    by_hand = await lab.add_graph("well")
    for graph in (well, broken, fallen, held, stopped, asleep, busy):
        await scheduled(lab, graph)
    for graph in (well, broken, fallen, held):
        await triggered(lab, graph)
    await triggered(lab, busy, ends=False)
    await lab.run(by_hand)
    handle = lab.client.get_schedule_handle(names.sync_schedule_id(stopped.slug))
    await handle.pause(note="looking at it")

    expected = {
        broken.slug: "failed",
        held.slug: "held",
        fallen.slug: "fallback",
        stopped.slug: "paused",
        asleep.slug: "paused",
        busy.slug: "running",
        well.slug: "ok",
        by_hand.slug: "ok",
    }
    told: list[dict] = []

    async def shown() -> bool:
        answer = await syncline.answer("status")
        # Other tests have graphs on this server, too.
        told[:] = [entry for entry in answer if entry["graph"] in expected]
        return {entry["graph"]: entry["standing"] for entry in told} == expected

    await eventually(shown)
    assert [entry["standing"] for entry in told] == [
        "failed", "held", "fallback", "paused", "paused", "running", "ok", "ok",
    ]  # fmt: skip
    by_slug = {entry["graph"]: entry for entry in told}
    assert (by_slug[broken.slug]["last_run"]["status"], by_slug[broken.slug]["last_run"]["rows"]) == (
        "failed",
        2,
    )
    assert "nodes: column gone" in by_slug[broken.slug]["findings"][0]["reason"]
    assert by_slug[fallen.slug]["last_run"]["provider"] == names.FALLBACK_PROVIDER
    assert by_slug[stopped.slug]["schedule"]["note"] == "looking at it"
    assert by_slug[stopped.slug]["schedule"]["paused_with_graph"] is False
    assert by_slug[asleep.slug]["schedule"]["paused_with_graph"] is True
    assert by_slug[busy.slug]["running"] is not None
    assert by_slug[well.slug]["last_run"]["started_by"] == "change"  # triggered, at no regular time
    assert by_slug[well.slug]["schedule"]["next_at"] is not None
    assert (by_slug[by_hand.slug]["last_run"]["started_by"], by_slug[by_hand.slug]["schedule"]) == (
        "hand",
        None,
    )

    listed = await syncline("status")
    [line] = [line for line in listed.out.splitlines() if line.startswith(f"{stopped.slug} ")]
    assert f"paused by an operator: looking at it: `syncline schedule resume {stopped.slug}`" in line
    [line] = [line for line in listed.out.splitlines() if line.startswith(f"{asleep.slug} ")]
    assert f"paused with the graph: `syncline graph resume {asleep.slug}`" in line
    release.set()

    answer = await syncline.answer("status GRAPH", fallen.slug)
    assert (answer["standing"], answer["answered"], answer["problem"]) == ("fallback", True, None)
    assert answer["state"]["provider"]["fallback"]["reason"] == "not_installed"
    assert answer["run"]["started_by"] == "change"
    shown_in_full = (await syncline("status", fallen.slug)).out
    for words in (
        "the built-in engine, in fallback since 2",
        "1 run in a row",
        "every 86400 s",
        "drained in",
    ):
        assert words in shown_in_full
    assert "paused by an operator: looking at it" in (await syncline("status", stopped.slug)).out
    assert "acme-sync, held since 2" in (await syncline("status", held.slug)).out
    [entry] = await syncline.answer("runs", held.slug)
    assert (entry["cycle"], entry["run"]["held"], entry["run"]["provider"]) == ("held", True, "acme-sync")
    by_hand_too = await syncline("sync", held.slug)
    assert (by_hand_too.status, by_hand_too.out.splitlines()[-1]) == (1, "held: nothing was synced")
    assert "`syncline providers`" in by_hand_too.err


@pytest.mark.long("test_every_graph_is_listed_with_what_it_is_doing_trouble_first")
async def test_after_a_run_by_hand_status_tells_of_the_schedules_fallback_too(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph("acme-sync", prepare=True)
    await scheduled(lab, graph)
    runs = ScheduledRuns(lab, graph)
    for _ in range(2):
        await (await runs.next()).result()
    await lab.services.graphs.update(graph.slug, GraphChanges(status="archived"))
    assert (await lab.failure(await runs.next())).type == "GraphInvalid"
    in_full = (await syncline("status", graph.slug)).out
    assert "in fallback since 2" in in_full
    assert "2 runs in a row" in in_full
    assert "this run has not found out" in in_full
    assert "3 runs, 1 of them failed, 0 rows" in in_full
    [refused, before, _] = await syncline.answer("runs", graph.slug)
    assert (refused["run"]["provider"], refused["run"]["status"]) == (None, "failed")
    assert before["run"]["provider"] == "builtin-engine"

    await lab.services.graphs.update(graph.slug, GraphChanges(status="active"))
    await lab.run(graph)
    in_full = (await syncline("status", graph.slug)).out
    assert "counted from this run on: it knows of none before it" in in_full
    assert "in its Schedule's last run: the built-in engine, in fallback since 2" in in_full
    answer = await syncline.answer("status GRAPH", graph.slug)
    assert answer["scheduled"]["consecutive_fallback_runs"] == 2


async def test_a_cron_is_asked_for_the_run_that_has_ended_not_for_the_one_to_come(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph(FakeProvider())
    cron = lab.unique("cron")
    await lab.client.start_workflow(
        names.SYNC_GRAPH,
        SyncGraphInput(graph=graph.slug),
        id=cron,
        task_queue=lab.task_queue,
        cron_schedule="@every 2s",
    )

    async def ran() -> bool:
        query = f'WorkflowId="{cron}" AND ExecutionStatus="Completed"'
        return (await lab.client.count_workflows(query)).count >= 1

    await eventually(ran)
    answer = await syncline.answer("status GRAPH", graph.slug)
    await lab.client.get_workflow_handle(cron).terminate()
    assert answer["run"]["started_by"] == "cron"
    assert (answer["run"]["status"], answer["state"]["phase"]) == ("completed", "done")
    assert answer["schedule"] is None
    runs = await syncline.answer("runs", graph.slug)
    assert {entry["run"]["started_by"] for entry in runs} == {"cron"}
    assert "completed" in {entry["run"]["status"] for entry in runs}


async def test_without_a_worker_a_graph_is_shown_by_what_temporal_keeps(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    async def rows(context: SyncContext) -> SyncResult:
        return sync_result(rows=3)

    graph = await idle_lab.add_graph(FakeProvider(cycle=rows))
    broken = await idle_lab.add_graph(failing())
    async with idle_lab.worker():
        await idle_lab.run(graph)
        await idle_lab.failure(await idle_lab.start(broken))
    at_once = ("--timeout", "0.5")
    done, failed = [
        await syncline.answer("status GRAPH", slug, *at_once) for slug in (graph.slug, broken.slug)
    ]
    assert done["answered"] is False
    assert done["standing"] in ("unknown", "no worker")  # never ok: nobody has looked
    assert "no worker answered" in done["problem"]
    assert done["state"]["last_result"]["tables"][0]["rows"] == 3
    assert done["state"]["carried"]["totals"]["runs"] == 1
    assert (failed["standing"], failed["state"]["phase"]) == ("failed", "failed")
    assert "nodes: column gone" in failed["state"]["error"]
    assert failed["state"]["last_result"]["status"] == CycleStatus.FAILED
    told = (await syncline("status", broken.slug, *at_once)).out
    assert "no worker answered" in told
    assert "nodes: column gone" in told


@pytest.mark.long("test_every_graph_is_listed_with_what_it_is_doing_trouble_first")
async def test_a_run_that_cannot_go_on_says_what_it_fails_at(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await lab.add_graph(failing(StoreUnavailable("write", "the server is shutting down")))
    run = await lab.start(graph)

    async def retried() -> bool:
        # The run is not listed at once.
        return "attempt" in (await syncline("status", graph.slug)).out

    await eventually(retried)
    answer = await syncline.answer("status GRAPH", graph.slug)
    assert answer["standing"] == "retrying"
    assert (answer["trying"]["activity"], answer["trying"]["attempt"] >= 2) == (names.SYNC_CYCLE, True)
    assert "the server is shutting down" in answer["trying"]["problem"]
    # A run by hand shows the same on stderr while it is waited for.
    waited = await syncline("sync", graph.slug, "--timeout", "2.5")
    assert waited.status == 1
    assert "the server is shutting down" in waited.err
    await run.terminate()
    await lab.client.get_workflow_handle(names.sync_workflow_id(graph.slug)).terminate()


async def test_a_graph_that_nobody_has_is_one_sentence(idle_lab: SyncLab, syncline: CommandLine) -> None:
    for command in ("status", "runs"):
        refused = await syncline(command, "moon")
        assert (refused.status, refused.out) == (1, "")
        assert refused.err.startswith("error: Temporal keeps no run")
        assert len(refused.err.splitlines()) == 1


@pytest.mark.long(after=1)
@pytest.mark.parametrize("command", ["status", "runs", "sync"])
async def test_a_graph_is_named_by_its_id(lab: SyncLab, syncline: CommandLine, command: str) -> None:
    graph = await lab.add_graph(FakeProvider())
    await lab.run(graph)
    typed = str(graph.id)
    answers = {"status": "status GRAPH", "runs": "runs", "sync": "sync"}
    answer = await syncline.answer(answers[command], typed.upper() if command == "sync" else typed)
    if command == "runs":
        assert [entry["run"]["status"] for entry in answer] == ["completed"]
    else:
        assert answer["graph"] == graph.slug


@pytest.mark.long(after=1)
@pytest.mark.parametrize("command", ["status", "runs", "sync"])
async def test_an_id_that_no_graph_has_is_one_sentence(
    lab: SyncLab, syncline: CommandLine, command: str
) -> None:
    unknown = str(uuid4())
    refused = await syncline(command, unknown)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith(f"error: No graph has the slug or id '{unknown}'")
    assert len(refused.err.splitlines()) == 1


async def test_runs_are_listed_by_what_started_them_and_how_they_ended(
    lab: SyncLab, syncline: CommandLine
) -> None:
    statuses = iter([CycleStatus.DRAINED, CycleStatus.ALREADY_RUNNING])

    async def cycle(context: SyncContext) -> SyncResult:
        status = next(statuses, None)
        return sync_result(error="column gone") if status is None else sync_result(status, rows=1)

    graph = await lab.add_graph(FakeProvider(cycle=cycle))
    await scheduled(lab, graph)
    await triggered(lab, graph)
    await lab.run(graph)
    await lab.failure(await lab.start(graph))
    answer: list[Any] = []

    async def listed_as_ended() -> bool:
        # A list is of what Temporal's visibility has by now.
        answer[:] = await syncline.answer("runs", graph.slug)
        return "running" not in {entry["run"]["status"] for entry in answer}

    await eventually(listed_as_ended)
    assert [(entry["run"]["started_by"], entry["run"]["status"], entry["cycle"]) for entry in answer] == [
        ("hand", "failed", "failed"),
        ("hand", "completed", "already_running"),
        ("change", "completed", "drained"),
    ]
    assert "column gone" in answer[0]["error"]
    assert len(await syncline.answer("runs", graph.slug, "--limit", "1")) == 1
    failed = await syncline.answer("runs", graph.slug, "--failed")
    assert [entry["run"]["run_id"] for entry in failed] == [answer[0]["run"]["run_id"]]
    listed = (await syncline("runs", graph.slug)).out.splitlines()
    assert listed[0].split()[:4] == ["started", "by", "run", "cycle"]
    assert len(listed) == 4


async def test_a_backfilled_run_is_told_apart(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await lab.add_graph(FakeProvider())
    await scheduled(lab, graph)
    period = ("--start", "2026-01-01", "--end", "2026-01-02")
    told = await syncline.answer("schedule backfill", graph.slug, *period)
    assert (told["action"], told["start"]) == ("backfilling", "2026-01-01T00:00:00Z")

    async def ran() -> bool:
        return (await lab.client.count_workflows(f'SynclineGraph="{graph.slug}"')).count > 0

    await eventually(ran)
    [entry] = await syncline.answer("runs", graph.slug)
    assert entry["run"]["started_by"] == "backfill"


async def test_sync_waits_for_its_run_and_prints_what_it_did(lab: SyncLab, syncline: CommandLine) -> None:
    async def rows(context: SyncContext) -> SyncResult:
        return sync_result(rows=3)

    provider = FakeProvider(cycle=rows)
    graph = await lab.add_graph(provider, status=GraphStatus.PAUSED)
    done = await syncline("sync", graph.slug, "--batch-rows", "7", "--time-budget", "9")
    assert done.status == 0, done.err
    first, summary, *table = done.out.splitlines()
    assert first.startswith(f"sync-graph/{graph.slug} (run ")
    assert summary.endswith(" by fake")
    assert table[1].split()[:3] == ["nodes", "3", "3"]
    assert (provider.contexts[0].budget.batch_rows, provider.contexts[0].budget.seconds) == (7, 9)

    answer = await syncline.answer("sync", graph.slug)
    assert (answer["status"], answer["cycle"], answer["provider"]) == ("completed", "drained", "fake")
    assert (answer["joined"], answer["workflow_id"]) == (False, f"sync-graph/{graph.slug}")
    shown = await lab.client.get_workflow_handle(f"sync-graph/{graph.slug}").describe()
    assert (await shown.memo())["graph"] == graph.slug
    assert await shown.static_summary() == f"Sync graph {graph.slug}, by hand"


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("result", "status", "cycle"),
    [
        (sync_result(CycleStatus.BUDGET_SPENT), 0, "budget_spent"),
        (sync_result(CycleStatus.VECTORS_DELAYED), 0, "vectors_delayed"),
        (sync_result(CycleStatus.ALREADY_RUNNING), 3, "already_running"),
        (sync_result(error="column gone"), 1, "failed"),
    ],
)
async def test_sync_ends_with_a_status_of_its_own_for_each_outcome(
    lab: SyncLab, syncline: CommandLine, result: SyncResult, status: int, cycle: str
) -> None:
    async def ended(context: SyncContext) -> SyncResult:
        return result

    graph = await lab.add_graph(FakeProvider(cycle=ended))
    answer = await syncline.answer("sync", graph.slug, status=status)
    assert answer["cycle"] == cycle
    assert (answer["error"] is not None) is (status == 1)
    told = await syncline("sync", graph.slug)
    assert told.status == status
    assert cycle in told.out
    assert ("error: 1 of 1 tables" in told.err) is (status == 1)


async def test_sync_refuses_what_contradicts_itself_and_what_no_graph_is(
    lab: SyncLab, syncline: CommandLine
) -> None:
    assert (await syncline("sync", "g", "--follow", "--no-wait")).status == 2
    for wrong in (("--batch-rows", "0"), ("--time-budget", "0")):
        assert (await syncline("sync", "g", *wrong)).status == 2
    unknown = await syncline("sync", "moon")
    assert unknown.status == 2
    assert "error: No graph has the slug or id 'moon'" in unknown.err


async def test_sync_joins_a_run_by_hand_that_is_open(lab: SyncLab, syncline: CommandLine) -> None:
    release = asyncio.Event()

    async def wait(context: SyncContext) -> SyncResult:
        await release.wait()
        return sync_result()

    graph = await lab.add_graph(FakeProvider(cycle=wait))
    started = await syncline.answer("sync", graph.slug, "--no-wait")
    assert (started["status"], started["joined"]) == ("running", False)
    late = await syncline.answer("sync", graph.slug, "--timeout", "0.2", status=1)
    assert (late["joined"], late["run_id"], late["status"]) == (True, started["run_id"], "running")
    release.set()
    done = await syncline("sync", graph.slug)
    assert done.status == 0
    # The scheduled run beside it finds the graph taken, which is no failure: covered by the engine's tests.


@pytest.mark.long(after=1)
@pytest.mark.parametrize("ended", [False, True], ids=["at work", "gone when it is looked for"])
async def test_following_goes_on_with_the_run_that_holds_the_graph(
    lab: SyncLab, syncline: CommandLine, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def cycle(context: SyncContext) -> SyncResult:
        if held.is_set() and not release.is_set():
            return sync_result(CycleStatus.ALREADY_RUNNING)
        held.set()
        await release.wait()
        return sync_result(rows=4)

    graph = await lab.add_graph(FakeProvider(cycle=cycle))
    other = await lab.start(graph)
    await held.wait()
    loop = asyncio.get_running_loop()

    async def let_go(client: Client, slug: str, *, but: str) -> ListedRun | None:
        """Find the other run and have it end; or find it no longer. The command has an event loop of its own."""
        found = await run_at_work(client, slug, but=but)
        loop.call_soon_threadsafe(release.set)
        while ended and found is not None:
            found = await run_at_work(client, slug, but=but)
        return found

    monkeypatch.setattr("syncline.temporal.runs.run_at_work", let_go)
    answer = await syncline.answer("sync", graph.slug, "--follow")
    assert (answer["cycle"], answer["result"]["tables"][0]["rows"]) == ("drained", 4)
    assert (answer["joined"], answer["run_id"] == other.first_execution_run_id) == (not ended, not ended)


async def test_sync_without_a_worker_says_so_at_once_and_keeps_the_run(
    idle_lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await idle_lab.add_graph(FakeProvider())
    async with asyncio.timeout(20):
        failed = await syncline("sync", graph.slug)
    assert failed.status == 1
    assert f"No worker polls task queue '{idle_lab.task_queue}'" in failed.err
    assert "The run is kept" in failed.err
    async with idle_lab.worker():
        answer = await syncline.answer("sync", graph.slug)
    assert (answer["joined"], answer["status"]) == (True, "completed")


async def test_following_shows_each_table_by_heartbeats(
    idle_lab: SyncLab, syncline: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News comes every second, though a worker sends it every five of its own accord; nothing is signalled."""
    lab, lines = idle_lab, ""
    sync_activities = SyncActivities(lab.services)
    show = Lines.show

    def noted(view: Lines, state: SyncState | None, pending: Pending) -> None:
        nonlocal lines
        show(view, state, pending)
        lines += view._last

    monkeypatch.setattr(Lines, "show", noted)

    async def slow(context: SyncContext) -> SyncResult:
        for captured in (1000, 2000):
            tables = (TableProgress(table="nodes", captured=captured, expected=3000),)
            context.heartbeat(CycleProgress(phase="capture", tables=tables))

            async def shown(rows: str = f"nodes {captured:,}") -> bool:
                return rows in lines

            await eventually(shown)
        tables = (TableProgress(table="nodes", captured=3000, expected=3000),)
        context.heartbeat(CycleProgress(phase="capture", tables=tables))
        return sync_result(rows=3000)

    graph = await lab.add_graph(FakeProvider(cycle=slow))
    async with create_worker(lab.client, sync_activities, lab.services.settings):
        followed = await syncline("sync", graph.slug, "--follow")
    assert followed.status == 0, followed.err
    for captured in ("1,000", "2,000"):
        assert f"syncing: capture; nodes {captured} of 3,000\n" in followed.out
    assert "done; nodes 3,000\n" in followed.out
    run = lab.client.get_workflow_handle(names.sync_workflow_id(graph.slug))
    assert "WORKFLOW_EXECUTION_SIGNALED" not in await lab.events(run)
    begun = (await run.fetch_history()).events[0].workflow_execution_started_event_attributes
    assert json.loads(begun.input.payloads[0].data)["progress_seconds"] == 1


async def test_status_shows_progress_of_the_last_heartbeat(idle_lab: SyncLab, syncline: CommandLine) -> None:
    """A run that nobody follows is not signalled its progress for a minute; it is shown all the same."""
    lab, told, release = idle_lab, asyncio.Event(), asyncio.Event()

    async def slow(context: SyncContext) -> SyncResult:
        tables = (TableProgress(table="nodes", captured=1234),)
        context.heartbeat(CycleProgress(phase="capture", tables=tables))
        told.set()
        await release.wait()
        return sync_result()

    graph = await lab.add_graph(FakeProvider(cycle=slow))
    async with create_worker(lab.client, SyncActivities(lab.services), lab.services.settings):
        run = await lab.start(graph)
        await told.wait()

        async def shown() -> bool:
            return "capture: 1,234 rows read" in (await syncline("status", graph.slug)).out

        await eventually(shown)
        release.set()
        await run.result()


async def test_status_names_a_service_that_does_not_answer(idle_lab: SyncLab, syncline: CommandLine) -> None:
    """While a run waits for it, and once the run has ended without its vectors; before: `running` and `ok`."""
    lab, release = idle_lab, asyncio.Event()
    since = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

    async def silent(context: SyncContext) -> SyncResult:
        context.heartbeat(
            CycleProgress(phase="vectors", waiting=Waiting(on="vector store 'qdrant'", since=since))
        )
        await release.wait()
        return sync_result(CycleStatus.VECTORS_DELAYED)

    graph = await lab.add_graph(FakeProvider(cycle=silent))
    async with create_worker(lab.client, SyncActivities(lab.services), lab.services.settings):
        run = await lab.start(graph)

        async def shown() -> bool:
            return "has answered neither" in (await syncline("status", graph.slug)).out

        await eventually(shown)
        assert (await syncline.answer("status GRAPH", graph.slug))["standing"] == "waiting"
        in_full = (await syncline("status", graph.slug)).out
        assert "vector store 'qdrant' has answered neither" in in_full
        assert "2026-03-04 05:06:07" in in_full
        release.set()
        await run.result()
        await eventually(lambda: _stands(syncline, graph.slug, "vectors delayed"))


async def _stands(syncline: CommandLine, slug: str, standing: str) -> bool:
    answer = await syncline.answer("status")
    return any(entry["graph"] == slug and entry["standing"] == standing for entry in answer)


@pytest.mark.long("test_following_shows_each_table_by_heartbeats")
async def test_the_engine_tells_a_follower_how_much_there_is(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await lab.add_graph("acme-sync", prepare=True)
    async with lab.services.write_schema(graph).store.driver() as connection:
        await connection.execute(
            f'INSERT INTO "{graph.schema_name}".write_nodes (id, concept)'
            " SELECT 'n' || i, 'node ' || i FROM generate_series(1, 1000) AS i"
        )
    followed = await syncline("sync", graph.slug, "--follow", "--batch-rows", "250")
    assert followed.status == 0, followed.err
    assert "nodes 1,000" in followed.out
    assert "drained in" in followed.out
    assert "by the built-in engine (fallback)" in followed.out


def test_a_terminal_shows_a_bar_once_the_total_is_known() -> None:
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=120, highlight=False)

    def state(*tables: TableProgress) -> SyncState:
        progress = CycleProgress(phase="capture", tables=tables, vectors=5)
        return SyncState(graph="g", phase=RunPhase.SYNCING, progress=progress)

    with Live(console) as live:
        live.show(state(TableProgress(table="nodes", captured=100, rows=100)), Pending())
        live.show(
            state(TableProgress(table="nodes", captured=200, rows=190, links=7, expected=150)), Pending()
        )
        live.show(
            None, Pending(trying=PendingRetry(activity="sync_cycle", attempt=3, problem="The store is away."))
        )
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.getvalue())
    assert "syncing: capture, 5 vectors" in shown
    assert re.search(r"nodes .* 100/\?", shown)
    # More has come than was expected.
    assert re.search(r"nodes .* 200/200 +190 changed, 7 links", shown)
    assert "sync_cycle: The store is away. Attempt 3 now." in shown


@pytest.mark.long("test_every_graph_is_listed_with_what_it_is_doing_trouble_first")
async def test_ctrl_c_stops_the_following_and_not_the_run(
    lab: SyncLab, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def wait(context: SyncContext) -> SyncResult:
        begun.set()
        await release.wait()
        return sync_result()

    graph = await lab.add_graph(FakeProvider(cycle=wait))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from syncline.cli import app; app()", "sync", graph.slug, "--follow",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **temporal_environment,
             "SYNCLINE_TASK_QUEUE": lab.task_queue},
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await begun.wait()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert "No longer waiting; the run goes on." in err.decode()
    assert f"temporal workflow cancel --workflow-id sync-graph/{graph.slug}" in err.decode()
    assert "Traceback" not in err.decode()
    release.set()
    result = await lab.client.get_workflow_handle(names.sync_workflow_id(graph.slug)).result()
    assert result["result"]["status"] == "drained"


async def test_a_server_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    away = CommandLine({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, tmp_path)
    for arguments in (("status",), ("status", "g"), ("runs", "g"), ("sync", "g"), ("providers",)):
        failed = await away(*arguments)
        assert (failed.status, failed.out) == (1, "")
        assert failed.err.startswith("error: Temporal at 127.0.0.1:1")
        assert len(failed.err.splitlines()) == 1
