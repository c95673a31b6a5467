"""What an operator may type by mistake: it is asked about or refused, and leaves nothing behind."""

from typing import Any

from syncline import names
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.list import list_schedule_ids
from syncline.testing.lab import SyncLab
from syncline.testing.providers import FakeProvider
from tests.kit.command_line import CommandLine


async def test_a_backfill_of_hundreds_of_runs_asks(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await lab.add_graph(FakeProvider(), schedule={"every_seconds": 60})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    handle = lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug))
    await handle.pause(note="only what is asked for")
    day = ("--start", "2026-01-01", "--end", "2026-01-02")
    asked = await syncline("schedule", "backfill", graph.slug, *day)
    assert asked.status == 1
    assert f"1,000 or more runs of {graph.slug}" in asked.err
    assert (await handle.describe()).info.num_actions == 0
    few = ("--start", "2026-01-01T00:00:00", "--end", "2026-01-01T00:01:30")
    done: Any = await syncline.answer("schedule backfill", graph.slug, *few)
    assert done["action"] == "backfilling"


async def test_cron_and_an_interval_contradict_each_other(lab: SyncLab, syncline: CommandLine) -> None:
    slug = lab.unique("graph")
    both = ("--cron", "0 * * * *", "--every-seconds", "60")
    for command in (("graph", "add", slug), ("graph", "set", slug)):
        refused = await syncline(*command, *both)
        assert (refused.status, "choose one" in refused.err) == (2, True)
    added = await syncline("graph", "add", slug, "--no-schedule", "--cron", "0 * * * *")
    assert added.status == 0, added.err
    record: Any = await syncline.answer("graph show", slug)
    assert record["schedule"]["cron"] == "0 * * * *"


async def test_watching_shows_all_graphs_alone(idle_lab: SyncLab, syncline: CommandLine) -> None:
    for wrong in (("world",), ("--json",)):
        refused = await syncline("status", "--watch", *wrong)
        assert (refused.status, "--watch" in refused.err) == (2, True)


async def test_an_unknown_graph_leaves_no_ghost(lab: SyncLab, syncline: CommandLine) -> None:
    moon = lab.unique("moon")
    for command in (
        ("sync", moon),
        ("sync", moon, "--no-wait"),
        ("status", moon),
        ("runs", moon),
        ("graph", "pause", moon),
        ("graph", "set", moon, "--every-seconds", "60"),
        ("schedule", "trigger", moon),
        ("schedule", "pause", moon, "--reason", "none"),
    ):
        said = await syncline(*command)
        assert said.status in (1, 2), command
        assert said.err.startswith("error: "), command
    assert names.sync_schedule_id(moon) not in await list_schedule_ids(lab.client)
    query = f'SynclineGraph="{moon}" AND WorkflowType="{names.SYNC_GRAPH}"'
    assert (await lab.client.count_workflows(query)).count == 0
    answer: Any = await syncline.answer("status")
    assert moon not in [entry["graph"] for entry in answer]


async def test_archived_graphs_are_listed_when_asked_for(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await lab.add_graph(FakeProvider())
    await lab.run(graph)
    assert (await syncline("graph", "archive", graph.slug)).status == 0
    for command in ("graph list", "status"):
        shown: Any = await syncline.answer(command)
        everything: Any = await syncline.answer(command, "--archived")
        key = "slug" if command == "graph list" else "graph"
        assert graph.slug not in [entry[key] for entry in shown]
        assert graph.slug in [entry[key] for entry in everything]
