"""Incidents made for real, and the state that `status`, `doctor` and the live board say while they last."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr
from rich.console import Console

from activities.operations import OperationActivities
from providers.default import DefaultSyncProvider
from syncline import names
from syncline.cli.status import status_table
from syncline.cli.tables import FittedTable
from syncline.control.graphs import Graph, GraphChanges
from syncline.control.services import Services
from syncline.messages.base import GraphStatus
from syncline.operator.graph_numbers import read_numbers
from syncline.operator.graph_state import GraphHealth
from syncline.settings import Settings
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.temporal.overview import GraphOverview
from syncline.temporal.overview_reader import OverviewReader
from syncline.temporal.runs import runs_of
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.trigger import trigger_run
from syncline.testing.lab import SyncLab, eventually
from tests.kit.command_line import CommandLine
from tests.kit.faulty_http import Answer
from tests.kit.vector_services import EmbeddingServer
from tests.workflow.conftest import fast_worker
from worker import create_operations_worker


@asynccontextmanager
async def connected(lab: SyncLab, graph: Graph, side: str = "write") -> AsyncIterator[asyncpg.Connection]:
    settings = lab.services.settings
    dsn = settings.write_dsn if side == "write" else settings.graph_dsn
    connection = await asyncpg.connect(
        dsn.get_secret_value(), server_settings={"search_path": graph.schema_name}
    )
    try:
        yield connection
    finally:
        await connection.close()


async def insert_nodes(lab: SyncLab, graph: Graph, number: int, first: int = 1) -> None:
    async with connected(lab, graph) as connection:
        await connection.execute(
            "INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node ' || i"
            " FROM generate_series($1::int, $2::int) i",
            first,
            first + number - 1,
        )


async def told(syncline: CommandLine, graph: Graph) -> dict[str, Any]:
    """Return what the list says of a graph; the report on it alone says the same, and so does its row."""
    answer: Any = await syncline.answer("status")
    [listed] = [entry for entry in answer if entry["graph"] == graph.slug]
    alone: Any = await syncline.answer("status GRAPH", graph.slug)
    assert (alone["standing"], alone["level"]) == (listed["standing"], listed["level"])
    row = unbroken(rendered(status_table([GraphOverview.model_validate(listed)]), 80))
    assert graph.slug in row
    assert unbroken(listed["standing"]) in row
    for finding in listed["findings"]:
        assert finding["next"] is None or unbroken(finding["next"]) in row
    return listed


def unbroken(text: str) -> str:
    return "".join(text.split())


def rendered(table: FittedTable, width: int) -> str:
    written = io.StringIO()
    Console(file=written, width=width, force_terminal=False).print(table)
    return written.getvalue()


@pytest.fixture
def lab(shared_lab: SyncLab) -> SyncLab:
    """One laboratory for the module, whose graphs embed with the development embedding."""
    if "default" not in shared_lab.services.registry.known("sync"):
        shared_lab.services.registry.register("sync", DefaultSyncProvider(), "syncline")
    return shared_lab


@pytest.fixture
def syncline(lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]) -> CommandLine:
    return temporal_only(lab)


async def test_a_graph_with_all_of_its_rows_refused_is_never_ok(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await lab.add_graph("default", prepare=True)
    async with connected(lab, graph, "graph") as target:
        await target.execute("ALTER TABLE nodes ADD CONSTRAINT none_at_all CHECK (concept IS NULL)")
    await insert_nodes(lab, graph, 300)
    await lab.run(graph)
    # Of a second run, the last result alone says that nothing failed.
    second = (await lab.run(graph)).result
    assert second is not None
    assert second.failures == 0
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("refused", "red")
    assert "300 rows refused" in found["findings"][0]["reason"]
    assert "SQLSTATE 23514, none_at_all" in found["findings"][0]["reason"]
    assert found["findings"][0]["next"] == f"syncline failures summary {graph.slug}"
    doctor: Any = await syncline.answer("doctor", status=1)
    [check] = [check for check in doctor["checks"] if check["name"] == f"graph {graph.slug}"]
    assert (check["status"], "300 rows refused" in check["found"]) == ("fail", True)
    board = OverviewReader(lab.client, task_queue=lab.task_queue)

    async def shown_as(state: GraphHealth) -> bool:
        return state in [one.standing for one in await board.read() if one.graph == graph.slug]

    assert await shown_as(GraphHealth.REFUSED)
    async with connected(lab, graph, "graph") as target:
        await target.execute("ALTER TABLE nodes DROP CONSTRAINT none_at_all")
        await target.execute("UPDATE sync_dead_letter SET next_retry_at = now()")
    await lab.run(graph)
    assert (await told(syncline, graph))["standing"] == "ok"
    # The board asks again because a run has ended.
    await eventually(lambda: shown_as(GraphHealth.OK))


async def test_a_key_that_a_first_load_owes_is_told_by_name(
    lab: SyncLab, syncline: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.first_load.WORTH_ROWS", 1)
    graph = await lab.add_graph("default", prepare=True)
    async with connected(lab, graph, "graph") as target:
        # Another writer's row, which comes while the key is away.
        await target.execute(
            "CREATE FUNCTION other_writer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO node_facts VALUES (gen_random_uuid(), gen_random_uuid()); RETURN NULL; END $$;"
            " CREATE TRIGGER other_writer AFTER INSERT ON nodes FOR EACH STATEMENT EXECUTE FUNCTION other_writer()"
        )
    await insert_nodes(lab, graph, 3)
    ran = (await lab.run(graph)).result
    assert ran is not None
    assert {owed.name for owed in ran.owed} == {"node_facts_node_id_fkey", "node_facts_fact_id_fkey"}
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("keys owed", "red")
    assert "node_facts_fact_id_fkey" in found["findings"][0]["reason"]
    doctor: Any = await syncline.answer("doctor", status=1)
    [check] = [check for check in doctor["checks"] if check["name"].endswith("keys owed")]
    assert (check["status"], "VALIDATE CONSTRAINT" in check["fix"]) == ("fail", True)
    assert "does not hold for all rows" in (await syncline("status", graph.slug)).out
    async with connected(lab, graph, "graph") as target:
        await target.execute("DROP FUNCTION other_writer CASCADE; TRUNCATE node_facts")
        await target.execute("UPDATE sync_state SET load_due_at = now()")
    await lab.run(graph)
    assert (await told(syncline, graph))["standing"] == "ok"


@pytest.mark.long(
    "integration/test_engine.py::test_the_oldest_writer_is_named",
    "unit/test_graph_state.py::test_numbers_say_the_state",
)
async def test_rows_behind_an_open_transaction_are_held_back(
    lab: SyncLab, syncline: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.operator.graph_numbers._LONG", 0.0)
    graph, other = await lab.add_graph("default", prepare=True), await lab.add_graph("default", prepare=True)
    for one in (graph, other):
        await insert_nodes(lab, one, 1)
    async with connected(lab, other) as writer:
        for one in (graph, other):
            await lab.run(one)
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE write_nodes SET concept = 'later'")
        await insert_nodes(lab, graph, 2, first=10)
        await lab.run(graph)
        await lab.run(other)
        found = await told(syncline, graph)
        assert (found["standing"], found["level"]) == ("held back", "yellow")
        assert f"pid {writer.get_server_pid()}" in found["findings"][0]["reason"]
        # Nothing was promised; then it was, and the one definition says so in the list too.
        await lab.services.graphs.update(graph.slug, GraphChanges(max_lag_seconds=1))
        await asyncio.sleep(1)
        found = await told(syncline, graph)
        assert (found["standing"], found["level"]) == ("late", "yellow")
        assert "1 s are promised" in found["findings"][0]["reason"]
        assert [finding["state"] for finding in found["findings"]] == ["late", "held back"]
        # The open transaction's own rows are not committed: that graph has nothing to wait for.
        assert (await told(syncline, other))["standing"] == "ok"
        await transaction.rollback()
    await lab.run(graph)
    assert (await told(syncline, graph))["standing"] == "ok"


@pytest.mark.long(
    "unit/test_graph_state.py::test_numbers_say_the_state",
    "workflow/test_guard_rails.py::test_archived_graphs_are_listed_when_asked_for",
)
async def test_parked_rows_an_archived_and_a_paused_graph_say_so(lab: SyncLab, syncline: CommandLine) -> None:
    graph = await lab.add_graph("default", prepare=True)
    # It has neither a run nor a Schedule yet, only a record.
    found = await told(syncline, graph)
    assert (found["standing"], found["findings"]) == ("never ran", [])
    assert "'nowhere'" in (await syncline("status", "nowhere")).err
    async with connected(lab, graph) as connection:
        await connection.execute(
            "INSERT INTO write_nodes (id, concept, parent_id) VALUES ('c', 'child', 'nowhere')"
        )
    await lab.run(graph)
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("parked", "yellow")
    assert found["findings"][0]["next"] == f"syncline parked {graph.slug}"
    await lab.services.graphs.update(graph.slug, GraphChanges(status=GraphStatus.ARCHIVED))
    answer: Any = await syncline.answer("status")
    assert graph.slug not in [entry["graph"] for entry in answer]
    answer = await syncline.answer("status", "--archived")
    assert [entry["standing"] for entry in answer if entry["graph"] == graph.slug] == ["archived"]


async def test_a_graph_whose_alias_or_store_is_away_is_not_ok(
    lab: SyncLab, syncline: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.temporal.graph_numbers._SHARE", 0.1)
    monkeypatch.setattr("syncline.engine.vectors.live_alias._SEEN_FOR", 0.0)
    graph = await lab.add_graph("default", prepare=True)
    await insert_nodes(lab, graph, 1)
    await lab.run(graph)
    assert (await told(syncline, graph))["standing"] == "ok"
    # By hand, as one does it on a server.
    store, alias = lab.services.vector_store(None), f"{graph.qdrant_prefix}nodes.live"
    assert isinstance(store, EmbeddedQdrantStore)
    store._aliases.change(lambda present: {name: of for name, of in present.items() if name != alias})
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("no alias", "yellow")
    assert alias in found["findings"][0]["reason"]
    await lab.run(graph)
    assert (await told(syncline, graph))["standing"] == "ok"
    # Nobody can read what waits: a lock stands for a store that does not answer.
    async with connected(lab, graph, "graph") as locker, locker.transaction():
        await locker.execute("LOCK TABLE sync_count IN ACCESS EXCLUSIVE MODE")
        found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("unknown", "yellow")
    assert (await told(syncline, graph))["standing"] == "ok"


@pytest.mark.long("test_a_graph_with_all_of_its_rows_refused_is_never_ok")
async def test_an_unfinished_cycle_an_invalid_record_and_a_shadow(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph("default", prepare=True)
    await insert_nodes(lab, graph, 50)
    await lab.run(graph, batch_rows=1, time_budget_seconds=0.001)
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("behind", "yellow")
    await lab.run(graph)
    assert (await told(syncline, graph))["standing"] == "ok"
    # Of a shadow its own state tables are read; this graph has none.
    shadow = names.shadow_slug(graph.slug)
    page = await read_numbers(lab.services, await lab.services.graphs.records(), graph=shadow)
    assert [(one.graph, one.kept, one.problem) for one in page.graphs] == [(shadow, False, None)]
    async with lab.services.control.driver() as connection:
        await connection.execute(
            """UPDATE syncline.graphs SET schedule = '{"often": 1}' WHERE slug = $1""", graph.slug
        )
    try:
        found = await told(syncline, graph)
    finally:
        async with lab.services.control.driver() as connection:
            await connection.execute(
                """UPDATE syncline.graphs SET schedule = '{}' WHERE slug = $1""", graph.slug
            )
    assert (found["standing"], found["level"]) == ("invalid record", "red")
    assert "often" in found["findings"][0]["reason"]


@pytest.fixture
def embedding() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
async def paid(lab: SyncLab, embedding: EmbeddingServer, tmp_path: Path) -> AsyncIterator[SyncLab]:
    """The laboratory's stores with a worker of a faulty embedding service, on a task queue of its own."""
    before = lab.services.settings
    settings = Settings(
        write_dsn=SecretStr(before.write_dsn.get_secret_value()),
        graph_dsn=SecretStr(before.graph_dsn.get_secret_value()),
        qdrant_path=tmp_path / "qdrant",
        task_queue=lab.unique("queue"),
        embedding="openai",
        embedding_url=embedding.url,
        embedding_model="m",
        embedding_dimensions=embedding.dimensions,
        graceful_shutdown_seconds=1,
        pool_size=4,
        workflow_sandbox=True,
    )
    async with Services.open(settings) as services, fast_worker(lab.client, services):
        services.registry.register("sync", DefaultSyncProvider(), "syncline")
        yield SyncLab(client=lab.client, services=services, make_worker=fast_worker, unique=lab.unique)


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("answer", "state", "level", "command"),
    [
        (Answer(401, b'{"error": {"message": "wrong key"}}'), "vectors delayed", "red", "syncline doctor"),
        (Answer(503, b"{}"), "vectors delayed", "yellow", "syncline doctor"),
        (Answer(429, b"{}", headers={"Retry-After": "600"}), "rate limited", "yellow", "syncline status"),
    ],
)
async def test_vectors_that_wait_are_never_ok(
    paid: SyncLab,
    temporal_only: Callable[[SyncLab], CommandLine],
    embedding: EmbeddingServer,
    answer: Answer,
    state: str,
    level: str,
    command: str,
) -> None:
    graph, syncline = await paid.add_graph("default", prepare=True), temporal_only(paid)
    embedding.failing = answer
    await insert_nodes(paid, graph, 103)
    await paid.run(graph)
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == (state, level)
    assert "103 vectors wait" in found["findings"][0]["reason"]
    assert found["findings"][0]["next"].startswith(command)


@pytest.mark.long("test_vectors_that_wait_are_never_ok")
async def test_refused_texts_and_a_spent_budget_are_seen(
    paid: SyncLab, temporal_only: Callable[[SyncLab], CommandLine], embedding: EmbeddingServer
) -> None:
    graph, syncline = await paid.add_graph("default", prepare=True), temporal_only(paid)
    embedding.refuses = lambda text: "node 2" in text
    await insert_nodes(paid, graph, 3)
    await paid.run(graph)
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("refused", "red")
    assert "1 text or point refused" in found["findings"][0]["reason"]
    budget = await paid.add_graph("default", prepare=True, vectors={"tokens_per_day": 1})
    await insert_nodes(paid, budget, 3)
    await paid.run(budget)
    found = await told(syncline, budget)
    assert (found["standing"], found["findings"][0]["next"]) == (
        "budget spent",
        f"syncline usage {budget.slug}",
    )


async def test_runs_of_a_change_of_the_clock_and_by_hand_are_told_apart(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph("default", prepare=True, schedule={"every_seconds": 2})
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)

    async def by(word: str) -> bool:
        return word in {run.started_by for run in await runs_of(lab.client, graph.slug, limit=20)}

    await eventually(lambda: by("schedule"))
    assert not await by("change")
    await lab.run(graph)
    await eventually(lambda: by("hand"))
    daily = graph.model_copy(update={"schedule": graph.schedule.model_copy(update={"every_seconds": 86_400})})
    await ensure_schedule(lab.client, daily, task_queue=lab.task_queue)
    assert await trigger_run(lab.client, graph.slug, task_queue=lab.task_queue) in ("started", "coming")
    await eventually(lambda: by("change"))
    await lab.client.get_schedule_handle(names.sync_schedule_id(graph.slug)).delete()


@pytest.mark.long(
    "workflow/test_operator_commands.py::test_without_a_worker_a_graph_is_shown_by_what_temporal_keeps"
)
async def test_without_a_worker_a_graph_is_not_ok(
    idle_lab: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    graph, syncline = await idle_lab.add_graph("default", prepare=True), temporal_only(idle_lab)
    idle_lab.services.registry.register("sync", DefaultSyncProvider(), "syncline")
    async with idle_lab.worker():
        await idle_lab.run(graph)
    answer: Any = await syncline.answer("status")
    [found] = [entry for entry in answer if entry["graph"] == graph.slug]
    assert found["standing"] in ("no worker", "unknown")
    assert found["findings"][0]["next"] == "syncline doctor"
    doctor: Any = await syncline.answer("doctor", "--timeout", "1", status=1)
    checks = {check["name"]: check["status"] for check in doctor["checks"]}
    assert checks["graphs"] == "skip"


async def test_removal_that_is_withheld_is_told_until_an_operator_agrees(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph("default", prepare=True)
    await insert_nodes(lab, graph, 300)
    await lab.run(graph)
    async with connected(lab, graph, "write") as source:
        # As it was restored from a backup: no deleted key tells of the rows that are gone.
        await source.execute("DELETE FROM write_nodes WHERE ctid IN (SELECT ctid FROM write_nodes LIMIT 120)")
        await source.execute("TRUNCATE sync_tombstone")
        await source.execute("UPDATE sync_position SET branch = gen_random_uuid()")
    ran = (await lab.run(graph)).result
    assert ran is not None
    assert [(each.table, each.rows) for each in ran.withheld] == [("nodes", 120)]
    found = await told(syncline, graph)
    assert (found["standing"], found["level"]) == ("removal withheld", "red")
    doctor: Any = await syncline.answer("doctor", status=1)
    [check] = [check for check in doctor["checks"] if check["name"].endswith("removals")]
    assert (check["status"], f"verify {graph.slug} --repair" in check["fix"]) == ("fail", True)
    assert "--repair" in (await syncline("status", graph.slug)).out
    operations = OperationActivities(lab.services, beat_seconds=0.2)
    async with create_operations_worker(lab.client, operations, lab.services.settings):
        repaired = await syncline("verify", graph.slug, "--repair", "--reason", "restored from the night")
        assert repaired.status == 1
        await lab.run(graph)
        assert (await told(syncline, graph))["standing"] == "ok"
        assert (await syncline("verify", graph.slug)).status == 0
