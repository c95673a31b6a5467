"""`syncline schedule …` and the commands that change a graph, against a server, stores and a worker."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from syncline import names
from syncline.graphs import Graph, GraphStatus
from syncline.schedules import PAUSED_WITH_GRAPH, ensure_schedule, list_schedules
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said where."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Syncline:
    """The command line as a process, with these variables and no others of ours."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    async def __call__(self, *arguments: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from syncline.cli import app; app()", *arguments,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "200", **self._environment},
            cwd=self._folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        said = Said(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in said.err, said.err
        return said


@pytest.fixture
def schedule(idle_lab: SyncLab, temporal_environment: dict[str, str], tmp_path: Path) -> Syncline:
    """The commands that talk to Temporal only: they are given no store."""
    return Syncline({**temporal_environment, "SYNCLINE_TASK_QUEUE": idle_lab.task_queue}, tmp_path)


@pytest.fixture
def syncline(idle_lab: SyncLab, temporal_environment: dict[str, str], tmp_path: Path) -> Syncline:
    settings = idle_lab.services.settings
    stores = {
        "SYNCLINE_WRITE_DSN": settings.write_dsn.get_secret_value(),
        "SYNCLINE_GRAPH_DSN": settings.graph_dsn.get_secret_value(),
        "SYNCLINE_TASK_QUEUE": settings.task_queue,
    }
    return Syncline({**temporal_environment, **stores}, tmp_path)


async def scheduled(lab: SyncLab, provider: FakeProvider | None = None, **fields: object) -> Graph:
    graph = await lab.add_graph(provider, **{"schedule": {"every_seconds": 86_400}, **fields})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    return graph


async def described(lab: SyncLab, graph: Graph):
    return await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).describe()


async def state(lab: SyncLab, graph: Graph) -> tuple[bool, str | None]:
    found = (await described(lab, graph)).schedule.state
    return found.paused, found.note


async def runs(lab: SyncLab, graph: Graph) -> int:
    return int((await described(lab, graph)).info.num_actions)


async def test_schedules_are_listed_with_spec_pause_note_and_runs(lab: SyncLab, schedule: Syncline) -> None:
    daily = await scheduled(lab, FakeProvider())
    cron = await scheduled(lab, schedule={"cron": "*/15 4 * * 1-5"})
    await schedule("schedule", "pause", cron.slug, "--reason", "store\nmaintenance")
    assert (await schedule("schedule", "trigger", daily.slug)).out == f"Triggered {daily.slug}.\n"

    async def shown() -> bool:
        found = {entry.slug: entry for entry in await list_schedules(lab.client)}
        there = daily.slug in found and cron.slug in found
        return there and found[cron.slug].paused and found[daily.slug].last_runs != ()

    await eventually(shown)
    told = {entry["graph"]: entry for entry in (await schedule("schedule", "list", "--json")).json}
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
    assert line.split("  ")[-1].strip() == "store maintenance"
    assert "paused" in line


async def test_a_schedule_is_paused_with_a_reason_and_resumed(idle_lab: SyncLab, schedule: Syncline) -> None:
    graph = await scheduled(idle_lab)
    paused = await schedule("schedule", "pause", graph.slug, "--reason", "looking at it")
    assert (paused.status, paused.out) == (0, f"Paused {graph.slug}: looking at it\n")
    assert await state(idle_lab, graph) == (True, "looking at it")
    assert (await schedule("schedule", "resume", graph.slug)).out == f"Resumed {graph.slug}.\n"
    assert (await state(idle_lab, graph))[0] is False
    assert (await schedule("schedule", "resume", graph.slug)).status == 0
    for wrong in ((), ("--reason", " ")):
        assert (await schedule("schedule", "pause", graph.slug, *wrong)).status == 2
    assert (await state(idle_lab, graph))[0] is False


async def test_a_schedule_that_is_paused_with_its_graph_is_not_resumed_without_it(
    idle_lab: SyncLab, schedule: Syncline
) -> None:
    graph = await scheduled(idle_lab, status="paused")
    refused = await schedule("schedule", "resume", graph.slug)
    assert refused.status == 2
    assert f"`syncline graph resume {graph.slug}`" in refused.err
    assert await state(idle_lab, graph) == (True, PAUSED_WITH_GRAPH)


async def test_missed_times_are_backfilled_both_ends_included(lab: SyncLab, schedule: Syncline) -> None:
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
    idle_lab: SyncLab, schedule: Syncline, start: str, end: str, sentence: str
) -> None:
    graph = await scheduled(idle_lab)
    refused = await schedule("schedule", "backfill", graph.slug, "--start", start, "--end", end)
    assert refused.status == 2
    assert sentence in refused.err
    assert await runs(idle_lab, graph) == 0


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
    schedule: Syncline, arguments: tuple[str, ...]
) -> None:
    refused = await schedule("schedule", arguments[0], "moon", *arguments[1:])
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("error: There is no Schedule 'sync-graph/moon'.")
    assert len(refused.err.splitlines()) == 1


async def test_a_server_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    away = Syncline({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, tmp_path)
    for arguments in (("list",), ("trigger", "moon"), ("reconcile",)):
        failed = await away("schedule", *arguments)
        assert failed.status == 1
        assert failed.err.startswith("error: Temporal at 127.0.0.1:1")


async def test_reconcile_prints_what_it_did_and_fails_for_those_it_could_not(
    lab: SyncLab, schedule: Syncline
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
    second = await schedule("schedule", "reconcile", "--json")
    assert second.status == 1
    assert (second.json["created"], second.json["unchanged"]) == (0, 1)
    assert set(second.json["refused"]) == {spoilt.slug}
    assert f"error: {spoilt.slug}: Graph '{spoilt.slug}', schedule.cron" in second.err


async def test_reconcile_without_a_worker_says_what_is_missing(idle_lab: SyncLab, schedule: Syncline) -> None:
    failed = await schedule("schedule", "reconcile", "--timeout", "1")
    assert failed.status == 1
    assert f"Is a worker running on task queue '{idle_lab.task_queue}'?" in failed.err
    assert len(failed.err.splitlines()) == 1


async def test_a_graphs_record_and_schedule_are_changed_together(
    idle_lab: SyncLab, syncline: Syncline
) -> None:
    graph = await scheduled(idle_lab)
    changed = await syncline(
        "graph", "set", graph.slug, "--name", "Renamed", "--cron", "30 4 * * *",
        "--composition", '{"sync": {"provider": "acme"}}', "--json",
    )  # fmt: skip
    assert changed.status == 0, changed.err
    assert changed.json["name"] == "Renamed"
    assert changed.json["composition"] == {"sync": {"provider": "acme"}}
    [calendar] = (await described(idle_lab, graph)).schedule.spec.calendars
    assert calendar.hour[0].start == 4

    back = await syncline("graph", "set", str(graph.id), "--every-seconds", "300")
    assert back.status == 0, back.err
    assert 'schedule       {"every_seconds": 300, "cron": null, "notify": true' in back.out
    spec = (await described(idle_lab, graph)).schedule.spec
    assert (spec.calendars, spec.intervals[0].every) == ([], timedelta(seconds=300))
    record = await idle_lab.services.graphs.get(graph.slug)
    assert (record.name, record.schedule.cron) == ("Renamed", None)

    slower = await syncline("graph", "set", graph.slug, "--adaptive", "--cadence", "600,1200")
    assert slower.status == 0, slower.err
    kept = await syncline("graph", "set", graph.slug, "--every-seconds", "900", "--json")
    assert kept.json["schedule"] == {
        "every_seconds": 900, "cron": None, "notify": True, "adaptive": True, "cadence": [600, 1200]
    }  # fmt: skip
    assert "every 900 to 1200 s" in (await syncline("graph", "list")).out


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
    idle_lab: SyncLab, syncline: Syncline, arguments: tuple[str, ...], sentence: str
) -> None:
    graph = await scheduled(idle_lab)
    refused = await syncline("graph", "set", graph.slug, *arguments)
    assert refused.status == 2
    assert sentence in refused.err
    assert len(refused.err.splitlines()) == 1
    assert await idle_lab.services.graphs.get(graph.slug) == graph


async def test_a_cron_expression_that_temporal_refuses_leaves_the_schedule_as_it_is(
    idle_lab: SyncLab, syncline: Syncline
) -> None:
    graph = await scheduled(idle_lab)
    refused = await syncline("graph", "set", graph.slug, "--cron", "99 99 * * *")
    assert refused.status == 2
    assert "Temporal refuses it" in refused.err
    assert f"syncline graph set {graph.slug} --cron" in refused.err
    intervals = (await described(idle_lab, graph)).schedule.spec.intervals
    assert intervals[0].every == timedelta(days=1)


async def test_a_graph_is_paused_resumed_and_archived_with_its_schedule(
    idle_lab: SyncLab, syncline: Syncline
) -> None:
    graph = await scheduled(idle_lab)
    assert (await syncline("graph", "pause", graph.slug, "--json")).json["status"] == "paused"
    assert await state(idle_lab, graph) == (True, PAUSED_WITH_GRAPH)
    resumed = await syncline("graph", "resume", graph.slug)
    assert "status         active" in resumed.out
    assert resumed.err == ""
    assert (await state(idle_lab, graph))[0] is False
    assert (await syncline("graph", "archive", graph.slug, "--json")).json["status"] == "archived"
    assert (await idle_lab.services.graphs.get(graph.slug)).status is GraphStatus.ARCHIVED

    async def gone() -> bool:
        return graph.slug not in {entry.slug for entry in await list_schedules(idle_lab.client)}

    await eventually(gone)
    assert (await syncline("graph", "resume", graph.slug, "--json")).json["status"] == "active"
    assert (await state(idle_lab, graph))[0] is False


async def test_an_operators_pause_is_told_when_the_graph_is_resumed(
    idle_lab: SyncLab, syncline: Syncline
) -> None:
    graph = await scheduled(idle_lab)
    await syncline("schedule", "pause", graph.slug, "--reason", "mine")
    resumed = await syncline("graph", "resume", graph.slug)
    assert resumed.status == 0
    assert f"paused by an operator (mine): `syncline schedule resume {graph.slug}`" in resumed.err
    assert await state(idle_lab, graph) == (True, "mine")


@pytest.mark.parametrize("arguments", [("set", "--name", "x"), ("pause",), ("resume",), ("archive",)])
async def test_a_graph_that_nobody_has_is_one_sentence(
    syncline: Syncline, arguments: tuple[str, ...]
) -> None:
    refused = await syncline("graph", arguments[0], "moon", *arguments[1:])
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("error: No graph has the slug or id 'moon'")


async def test_a_record_is_not_changed_while_temporal_is_away(
    idle_lab: SyncLab, syncline: Syncline, tmp_path: Path
) -> None:
    graph = await scheduled(idle_lab)
    settings = idle_lab.services.settings
    away = Syncline(
        {
            "TEMPORAL_ADDRESS": "127.0.0.1:1",
            "SYNCLINE_WRITE_DSN": settings.write_dsn.get_secret_value(),
            "SYNCLINE_GRAPH_DSN": settings.graph_dsn.get_secret_value(),
        },
        tmp_path,
    )
    assert (await away("graph", "pause", graph.slug)).status == 1
    assert await idle_lab.services.graphs.get(graph.slug) == graph
