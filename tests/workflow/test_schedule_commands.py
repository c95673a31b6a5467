"""`syncline schedule …` and the commands that change a graph, against a server, stores and a worker."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.api.workflowservice.v1 import UpdateScheduleRequest
from temporalio.service import RPCError, RPCStatusCode, WorkflowService

from syncline import names
from syncline.cli.operators import os_user
from syncline.control.graphs import Graph
from syncline.messages.base import GraphStatus
from syncline.temporal.schedules.graph import PAUSED_WITH_GRAPH, ensure_schedule
from syncline.temporal.schedules.list import list_schedules
from syncline.temporal.schedules.notes import read_note
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider
from syncline.testing.temporal_server import start_temporal
from tests.kit.command_line import CommandLine


@pytest.fixture
def schedule(idle_lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]) -> CommandLine:
    """The commands that steer Schedules; no worker is needed."""
    return temporal_only(idle_lab)


@pytest_asyncio.fixture(loop_scope="session")
async def alone(idle_lab: SyncLab) -> AsyncIterator[SyncLab]:
    """A laboratory on a server that has no Schedules but its own."""
    async with start_temporal() as server:
        yield replace(idle_lab, client=server.client)


@pytest.fixture
def of_all(alone: SyncLab, quiet: None, tmp_path: Path) -> CommandLine:
    """The commands that steer the Schedules of that server."""
    address = alone.client.service_client.config.target_host
    environment = {"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": alone.client.namespace}
    return CommandLine({**environment, "SYNCLINE_TASK_QUEUE": alone.task_queue}, tmp_path)


@pytest.fixture
def syncline(lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]) -> CommandLine:
    """The commands that a worker carries out."""
    return temporal_only(lab)


async def scheduled(lab: SyncLab, provider: FakeProvider | None = None, **fields: object) -> Graph:
    graph = await lab.add_graph(provider, **{"schedule": {"every_seconds": 86_400}, **fields})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph


async def described(lab: SyncLab, graph: Graph):
    return await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).describe()


async def state(lab: SyncLab, graph: Graph) -> tuple[bool, str | None]:
    found = (await described(lab, graph)).schedule.state
    said = read_note(found.note)
    return found.paused, PAUSED_WITH_GRAPH if said.with_graph else said.reason


async def runs(lab: SyncLab, graph: Graph) -> int:
    return int((await described(lab, graph)).info.num_actions)


async def test_schedules_are_listed_with_spec_pause_note_and_runs(
    lab: SyncLab, schedule: CommandLine
) -> None:
    daily = await scheduled(lab, FakeProvider())
    cron = await scheduled(lab, schedule={"cron": "*/15 4 * * 1-5"})
    await schedule("schedule", "pause", cron.slug, "--reason", "store\nmaintenance")
    assert (await schedule.answer("schedule trigger", daily.slug))["action"] == "triggered"

    async def shown() -> bool:
        found = {entry.slug: entry for entry in await list_schedules(lab.client)}
        there = daily.slug in found and cron.slug in found
        return there and found[cron.slug].paused and found[daily.slug].last_runs != ()

    await eventually(shown)
    told = {entry["graph"]: entry for entry in await schedule.answer("schedule list")}
    assert told[daily.slug]["spec"] == "every 86400 s"
    assert (told[daily.slug]["paused"], told[daily.slug]["note"]) == (False, None)
    assert told[daily.slug]["next_at"] is not None
    [run] = told[daily.slug]["last_runs"]
    assert run["workflow_id"].startswith(names.sync_workflow_id(daily.slug))
    assert told[cron.slug]["spec"] == "*/15 4 * * 1-5"
    assert (told[cron.slug]["paused"], told[cron.slug]["next_at"]) == (True, None)

    listed = await schedule("schedule", "list")
    header, *lines = listed.out.splitlines()
    assert header.split() == ["graph", "schedule", "state", "next", "run", "last", "run", "note"]
    [line] = [line for line in lines if line.startswith(f"{cron.slug} ")]
    assert line.split("  ")[-1].strip() == f"store maintenance (by {os_user()})"
    assert "paused" in line


async def test_a_schedule_is_paused_with_a_reason_and_resumed(
    idle_lab: SyncLab, schedule: CommandLine
) -> None:
    graph = await scheduled(idle_lab)
    paused = await schedule("schedule", "pause", graph.slug, "--reason", "looking at it")
    assert (paused.status, paused.out) == (0, f"Paused {graph.slug}: looking at it\n")
    assert await state(idle_lab, graph) == (True, "looking at it")
    again = await schedule.answer("schedule pause", graph.slug, "--reason", "still")
    assert (again["action"], again["reason"]) == ("paused", "still")
    assert (await schedule.answer("schedule resume", graph.slug))["action"] == "resumed"
    assert (await schedule("schedule", "resume", graph.slug)).out == f"Resumed {graph.slug}.\n"
    assert (await state(idle_lab, graph))[0] is False
    assert (await schedule("schedule", "resume", graph.slug)).status == 0
    for wrong in ((), ("--reason", " ")):
        assert (await schedule("schedule", "pause", graph.slug, *wrong)).status == 2
    assert (await state(idle_lab, graph))[0] is False


async def listed(lab: SyncLab, *graphs: Graph) -> None:
    """Return once the list, which lags, has all of these."""

    async def there() -> bool:
        return {graph.slug for graph in graphs} <= {entry.slug for entry in await list_schedules(lab.client)}

    await eventually(there)


@pytest.mark.long(
    "test_a_schedule_is_paused_with_a_reason_and_resumed",
    "test_a_graph_is_paused_resumed_and_archived_with_its_schedule",
)
async def test_all_schedules_are_paused_and_those_resumed_that_were_paused_for_the_same_reason(
    alone: SyncLab, of_all: CommandLine
) -> None:
    one, other = await scheduled(alone), await scheduled(alone, schedule={"cron": "0 4 * * *"})
    mine, gone = await scheduled(alone), await scheduled(alone, status="paused")
    await of_all("schedule", "pause", mine.slug, "--reason", "mine")
    await listed(alone, one, other, mine, gone)
    reason = f"maintenance, {one.slug}"
    others = [(mine, (True, "mine")), (gone, (True, PAUSED_WITH_GRAPH))]

    paused = await of_all.answer("schedule pause --all", "--all", "--reason", reason)
    assert set(paused["graphs"]) == {one.slug, other.slug}
    assert (paused["action"], paused["reason"], paused["failed"]) == ("paused", reason, {})
    for graph, found in [(one, (True, reason)), (other, (True, reason)), *others]:
        assert await state(alone, graph) == found
    other_reason = await of_all("schedule", "resume", "--all", "--reason", f"{reason} too")
    assert other_reason.status == 0
    assert other_reason.out == "Nothing resumed: none is paused for that reason.\n"

    resumed = await of_all("schedule", "resume", "--all", "--reason", reason)
    assert resumed.status == 0
    assert set(resumed.out.splitlines()) == {f"Resumed {one.slug}.", f"Resumed {other.slug}."}
    for graph, found in [(one, (False, None)), (other, (False, None)), *others]:
        assert await state(alone, graph) == found
    [calendar] = (await described(alone, other)).schedule.spec.calendars
    assert calendar.hour[0].start == 4
    nothing = await of_all.answer("schedule resume --all", "--all", "--reason", reason)
    assert nothing == {"action": "resumed", "reason": reason, "graphs": [], "failed": {}}


@pytest.mark.long(
    "test_a_schedule_is_paused_with_a_reason_and_resumed",
    "test_a_graph_is_paused_resumed_and_archived_with_its_schedule",
)
async def test_one_that_could_not_be_paused_stops_no_other_and_is_told(
    alone: SyncLab, of_all: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, other = await scheduled(alone), await scheduled(alone)
    await listed(alone, broken, other)
    update = WorkflowService.update_schedule

    async def refused(service: WorkflowService, request: UpdateScheduleRequest, **keywords: object) -> object:
        if request.schedule_id == names.sync_schedule_id(broken.slug):
            raise RPCError("not today", RPCStatusCode.PERMISSION_DENIED, b"")
        return await update(service, request, **keywords)

    monkeypatch.setattr(WorkflowService, "update_schedule", refused)
    failed = await of_all("schedule", "pause", "--all", "--reason", "maintenance")
    assert failed.status == 1
    assert f"error: {broken.slug}: Temporal at " in failed.err
    assert f"Paused {other.slug}." in failed.out.splitlines()
    assert (await state(alone, broken))[0] is False
    assert await state(alone, other) == (True, "maintenance")


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("pause", "--reason", "r"), "Nothing is named: give a GRAPH, or --all."),
        (("pause", "moon", "--all", "--reason", "r"), "Both moon and --all are given"),
        (("pause", "--all", "--reason", " "), "--reason is empty"),
        (("pause", "--all", "--reason", PAUSED_WITH_GRAPH), "--reason is the one of graphs that are paused"),
        (("resume",), "Nothing is named: give a GRAPH, or --all."),
        (("resume", "moon", "--all"), "Both moon and --all are given"),
        (("resume", "--all"), "--all needs --reason"),
        (("resume", "moon", "--reason", "r"), "--reason goes with --all"),
    ],
)
async def test_either_one_graph_or_all_are_named(
    schedule: CommandLine, arguments: tuple[str, ...], sentence: str
) -> None:
    refused = await schedule("schedule", *arguments)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith(f"error: {sentence}")


async def test_a_schedule_that_is_paused_with_its_graph_is_not_resumed_without_it(
    idle_lab: SyncLab, schedule: CommandLine
) -> None:
    graph = await scheduled(idle_lab, status="paused")
    refused = await schedule("schedule", "resume", graph.slug)
    assert refused.status == 2
    assert f"`syncline graph resume {graph.slug}`" in refused.err
    assert await state(idle_lab, graph) == (True, PAUSED_WITH_GRAPH)


@pytest.mark.long(
    "test_a_schedule_is_paused_with_a_reason_and_resumed",
    "test_a_graph_is_paused_resumed_and_archived_with_its_schedule",
)
async def test_missed_times_are_backfilled_both_ends_included(lab: SyncLab, schedule: CommandLine) -> None:
    graph = await scheduled(lab, FakeProvider(), schedule={"cron": "0 0 * * *"})
    period = ("--start", "2026-01-01", "--end", "2026-01-03T00:00:00+00:00")
    said = await schedule("schedule", "backfill", graph.slug, *period)
    assert said.status == 0, said.err
    assert "from 2026-01-01T00:00:00+00:00 to 2026-01-03T00:00:00+00:00" in said.out

    async def all_three() -> bool:
        return await runs(lab, graph) == 3

    await eventually(all_three)


@pytest.mark.parametrize(
    ("start", "end", "sentence"),
    [
        ("yesterday", "2026-01-01", "--start 'yesterday' is no time"),
        ("2026-01-02", "2026-01-01", "--end is before --start"),
    ],
)
async def test_a_period_that_is_none_is_refused(
    idle_lab: SyncLab, schedule: CommandLine, start: str, end: str, sentence: str
) -> None:
    graph = await scheduled(idle_lab)
    refused = await schedule("schedule", "backfill", graph.slug, "--start", start, "--end", end)
    assert refused.status == 2
    assert sentence in refused.err
    assert await runs(idle_lab, graph) == 0


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    "arguments",
    [
        ("trigger",),
        ("pause", "--reason", "r"),
        ("resume",),
        ("backfill", "--start", "2026-01-01", "--end", "2026-01-02"),
    ],
)
async def test_a_name_that_no_schedule_has_is_one_sentence(
    schedule: CommandLine, arguments: tuple[str, ...]
) -> None:
    refused = await schedule("schedule", arguments[0], "moon", *arguments[1:])
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("error: There is no Schedule 'sync-graph/moon'.")
    assert len(refused.err.splitlines()) == 1


@pytest.mark.long(
    "test_a_schedule_is_paused_with_a_reason_and_resumed",
    "test_a_graph_is_paused_resumed_and_archived_with_its_schedule",
)
async def test_a_schedule_is_named_by_the_id_of_its_graph(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await scheduled(lab, FakeProvider())
    typed = str(graph.id)
    paused = await syncline.answer("schedule pause", typed, "--reason", "maintenance")
    assert (paused["graph"], await state(lab, graph)) == (graph.slug, (True, "maintenance"))
    assert (await syncline("schedule", "resume", typed)).out == f"Resumed {graph.slug}.\n"
    assert (await state(lab, graph))[0] is False
    assert (await syncline.answer("schedule trigger", typed))["graph"] == graph.slug
    period = ("--start", "2026-01-01", "--end", "2026-01-02")
    assert (await syncline.answer("schedule backfill", typed, *period))["graph"] == graph.slug


async def test_an_id_needs_a_worker_and_a_slug_none(idle_lab: SyncLab, schedule: CommandLine) -> None:
    graph = await scheduled(idle_lab)
    assert (await schedule("schedule", "pause", graph.slug, "--reason", "r")).status == 0
    by_id = await schedule("schedule", "resume", str(graph.id))
    assert (by_id.status, by_id.out) == (1, "")
    assert "No worker" in by_id.err
    assert (await state(idle_lab, graph))[0] is True


async def test_a_server_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    away = CommandLine({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, tmp_path)
    for arguments in (("schedule", "list"), ("schedule", "reconcile"), ("graph", "pause", "moon")):
        failed = await away(*arguments)
        assert failed.status == 1
        assert failed.err.startswith("error: Temporal at 127.0.0.1:1")


async def test_reconcile_prints_what_it_did_and_fails_for_those_it_could_not(
    lab: SyncLab, schedule: CommandLine
) -> None:
    graph = await lab.add_graph(schedule={"every_seconds": 86_400})
    first = await schedule("schedule", "reconcile")
    assert first.status == 0, first.err
    assert first.out.splitlines()[0].split() == ["created", "1", graph.slug]

    spoilt = await lab.add_graph()
    async with lab.services.control.driver() as connection:
        await connection.execute(
            """UPDATE syncline.graphs SET schedule = '{"cron": "whenever"}' WHERE slug = $1""", spoilt.slug
        )
    second = await schedule.answer("schedule reconcile", status=1)
    assert (second["created"], second["unchanged"]) == (0, 1)
    assert set(second["refused"]) == {spoilt.slug}
    told = await schedule("schedule", "reconcile")
    assert f"error: {spoilt.slug}: Graph '{spoilt.slug}', schedule.cron" in told.err


async def test_reconcile_without_a_worker_says_what_is_missing(
    idle_lab: SyncLab, schedule: CommandLine
) -> None:
    failed = await schedule("schedule", "reconcile")
    assert failed.status == 1
    assert failed.err.startswith(f"error: No worker polls task queue '{idle_lab.task_queue}'")
    assert len(failed.err.splitlines()) == 1


async def test_a_graphs_record_and_schedule_are_changed_together(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await scheduled(lab)
    changed = await syncline(
        "graph", "set", graph.slug, "--name", "Renamed", "--cron", "30 4 * * *",
        "--composition", '{"sync": {"provider": "acme"}}', "--json",
    )  # fmt: skip
    assert changed.status == 0, changed.err
    assert changed.json["name"] == "Renamed"
    assert changed.json["composition"] == {"sync": {"provider": "acme"}}
    [calendar] = (await described(lab, graph)).schedule.spec.calendars
    assert calendar.hour[0].start == 4

    back = await syncline("graph", "set", str(graph.id), "--every-seconds", "300")
    assert back.status == 0, back.err
    assert 'schedule        {"every_seconds": 300, "cron": null, "notify": true' in back.out
    spec = (await described(lab, graph)).schedule.spec
    assert (spec.calendars, spec.intervals[0].every) == ([], timedelta(seconds=300))
    record = await lab.services.graphs.get(graph.slug)
    assert (record.name, record.schedule.cron) == ("Renamed", None)

    slower = await syncline(
        "graph", "set", graph.slug, "--adaptive", "--cadence", "600,1200", "--linger", "2.5"
    )
    assert slower.status == 0, slower.err
    kept = await syncline("graph", "set", graph.slug, "--every-seconds", "900", "--json")
    assert kept.json["schedule"] == {
        "every_seconds": 900, "cron": None, "notify": True, "adaptive": True, "cadence": [600, 1200],
        "linger_seconds": 2.5,
    }  # fmt: skip
    assert "every 900 to 1200 s" in (await syncline("graph", "list")).out


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Nothing is to be set"),
        (("--every-seconds", "0"), "schedule.every_seconds"),
        (("--cron", "whenever"), "schedule.cron"),
        (("--adaptive", "--no-notify"), "adaptive needs notify"),
        (("--cadence", "soon"), "--cadence 'soon' is not seconds"),
        (("--composition", "{"), "--composition is not JSON"),
        (("--composition", "[]"), "composition"),
        (("--composition", '{"snyc": {}}'), "composition key 'snyc' is invalid"),
    ],
)
async def test_a_change_that_breaks_a_rule_changes_nothing(
    lab: SyncLab, syncline: CommandLine, arguments: tuple[str, ...], sentence: str
) -> None:
    graph = await scheduled(lab)
    refused = await syncline("graph", "set", graph.slug, *arguments)
    assert refused.status == 2
    assert sentence in refused.err
    assert len(refused.err.splitlines()) == 1
    assert await lab.services.graphs.get(graph.slug) == graph


async def test_a_cron_expression_that_temporal_refuses_leaves_the_schedule_as_it_is(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await scheduled(lab)
    refused = await syncline("graph", "set", graph.slug, "--cron", "99 99 * * *")
    assert refused.status == 2
    assert "Temporal rejects it" in refused.err
    assert f"syncline graph set {graph.slug} --cron" in refused.err
    intervals = (await described(lab, graph)).schedule.spec.intervals
    assert intervals[0].every == timedelta(days=1)


async def test_a_graph_is_paused_resumed_and_archived_with_its_schedule(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await scheduled(lab)
    paused = await syncline("graph", "pause", graph.slug, "--reason", "too big", "--json")
    assert paused.json["status"] == "paused"
    assert await state(lab, graph) == (True, PAUSED_WITH_GRAPH)
    [row] = [row for row in await syncline.answer("status") if row["graph"] == graph.slug]
    schedule = row["schedule"]
    assert (schedule["reason"], schedule["paused_by"]) == ("too big", os_user())
    assert "too big" in (await syncline("status", graph.slug)).out
    resumed = await syncline("graph", "resume", graph.slug)
    assert "status          active" in resumed.out
    assert resumed.err == ""
    assert (await state(lab, graph))[0] is False
    assert (await syncline("graph", "archive", graph.slug, "--json")).json["status"] == "archived"
    assert (await lab.services.graphs.get(graph.slug)).status is GraphStatus.ARCHIVED

    async def gone() -> bool:
        return graph.slug not in {entry.slug for entry in await list_schedules(lab.client)}

    await eventually(gone)
    assert (await syncline("graph", "resume", graph.slug, "--json")).json["status"] == "active"
    assert (await state(lab, graph))[0] is False


async def test_an_operators_pause_is_told_when_the_graph_is_resumed(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await scheduled(lab)
    await syncline("schedule", "pause", graph.slug, "--reason", "mine")
    resumed = await syncline("graph", "resume", graph.slug)
    assert resumed.status == 0
    assert (
        f"paused by an operator: mine (by {os_user()}): `syncline schedule resume {graph.slug}`"
        in resumed.err
    )
    assert await state(lab, graph) == (True, "mine")


@pytest.mark.long(after=1)
@pytest.mark.parametrize("arguments", [("show",), ("set", "--name", "x"), ("pause",)])
async def test_a_graph_that_nobody_has_is_one_sentence(
    syncline: CommandLine, arguments: tuple[str, ...]
) -> None:
    refused = await syncline("graph", arguments[0], "moon", *arguments[1:])
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("error: No graph has the slug or id 'moon'")


async def test_a_graph_is_added_by_a_worker_with_all_that_it_needs(
    lab: SyncLab, syncline: CommandLine
) -> None:
    slug = lab.unique("mars")
    added = await syncline("graph", "add", slug, "--every-seconds", "86400", "--json")
    assert added.status == 0, added.err
    graph = await lab.services.graphs.get(slug)
    assert added.json == graph.model_dump(mode="json")
    assert await state(lab, graph) == (False, None)

    async def has_run() -> bool:
        return await runs(lab, graph) == 1

    await eventually(has_run)
    assert await lab.services.prepare_graph(graph) == []
    assert (await syncline("graph", "add", slug, "--every-seconds", "86400", "--json")).json == added.json
    other = await syncline("graph", "add", slug, "--every-seconds", "30")
    assert other.status == 2
    assert other.err.startswith(f"error: Graph '{slug}', ")
    assert "another graph" in other.err
    composed = await syncline("graph", "add", "venus", "--composition", '{"snyc": {}}')
    assert (composed.status, composed.out) == (2, "")
    assert composed.err.startswith("error: Graph 'venus': composition key 'snyc' is invalid")


async def test_graphs_are_listed_and_shown(lab: SyncLab, syncline: CommandLine) -> None:
    assert (await syncline("graph", "list", "--json")).json == []
    graph = await lab.add_graph(schedule={"every_seconds": 30}, is_default=True, slug="my-world")
    record = graph.model_dump(mode="json")
    assert (await syncline("graph", "list", "--json")).json == [record]
    assert (await syncline("graph", "show", str(graph.id), "--json")).json == record
    header, line = (await syncline("graph", "list")).out.splitlines()
    assert header.split("  ")[0] == "graph"
    assert line.split() == ["my-world", "active", "my_world", "my_world_", "-", "every", "30", "s", "default"]
    assert "slug            my-world" in (await syncline("graph", "show", "my-world")).out
