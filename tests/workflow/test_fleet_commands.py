"""`syncline providers|doctor` and completion: who has what, and whether all is well, asked of a worker."""

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr
from temporalio.client import Client

from syncline import names
from syncline.capture.listen.status import listened_to, listener_name
from syncline.control.graphs import GraphChanges
from syncline.control.services import Services
from syncline.control.workers import WorkerRepository, register_worker
from syncline.operator.health.check import Check, CheckStatus
from syncline.operator.health.examine import examine
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.temporal.schedules.reconcile import ensure_reconciler
from syncline.temporal.task_queues import pollers
from syncline.testing.lab import SyncLab, eventually
from syncline.testing.providers import FakeProvider
from tests.kit.command_line import CommandLine
from tests.workflow.conftest import fast_worker
from worker import listen

_NOBODYS = '{"sync": {"provider": "nobodys", "on_missing": "hold"}}'
_ACMES = '{"sync": {"provider": "acme"}, "shadow": {"provider": "spare"}}'


async def told(services: Services, number: int) -> None:
    """Wait until the control plane knows of so many workers."""

    async def known() -> bool:
        return len(await services.workers.list()) == number

    await eventually(known)


async def test_providers_says_what_is_installed_where_and_who_uses_it(
    lab: SyncLab, syncline: CommandLine
) -> None:
    registry = lab.services.registry
    registry.register("sync", FakeProvider("acme", version="2.0"), "acme-sync 2.0")
    registry.register("sync", FakeProvider("spare"), "spare 1.0")
    acme = await lab.add_graph("acme")
    missing = await lab.add_graph(
        "nowhere", composition={"sync": {"provider": "nowhere"}, "definition": {"provider": "words"}}
    )
    bare = await lab.add_graph()
    await lab.add_graph("acme", status="archived")
    spoilt = await lab.add_graph()
    async with lab.services.control.driver() as connection:
        await connection.execute(
            """UPDATE syncline.graphs SET composition = '{"snyc": {}}' WHERE slug = $1""", spoilt.slug
        )
    older = Registry()
    older.register("sync", FakeProvider("acme", version="1.0"), "acme-sync 1.0")
    async with (
        Services.open(lab.services.settings, registry=older) as other,
        register_worker(lab.services, identity="one@host:1"),
        register_worker(other, identity="two@host:2"),
    ):
        await told(lab.services, 2)
        fleet = await syncline.answer("providers")
        shown = await syncline("providers")
        slugs = [lab.unique("g") for _ in range(2)]
        nobodys, acmes = [
            await syncline("graph", "add", slug, "--no-schedule", "--composition", composed)
            for slug, composed in zip(slugs, (_NOBODYS, _ACMES), strict=True)
        ]
    assert (nobodys.status, acmes.status) == (0, 0)
    assert "'nobodys'" in nobodys.err
    assert "held" in nobodys.err
    assert acmes.err == ""
    uses = {(use["kind"], use["id"]): use for use in fleet["providers"]}
    assert uses.keys() == {
        ("sync", "acme"), ("sync", "spare"), ("sync", "nowhere"), ("definition", "words"),
    }  # fmt: skip
    assert [(found["version"], found["worker_names"]) for found in uses["sync", "acme"]["installed"]] == [
        ("1.0", ["two@host:2"]),
        ("2.0", ["one@host:1"]),
    ]
    assert (uses["sync", "acme"]["graphs"], uses["sync", "acme"]["graph_names"]) == (1, [acme.slug])
    assert (uses["sync", "spare"]["graphs"], len(uses["sync", "spare"]["installed"])) == (0, 1)
    assert (uses["sync", "nowhere"]["installed"], uses["sync", "nowhere"]["graph_names"]) == (
        [],
        [missing.slug],
    )
    assert (fleet["graphs"], fleet["undeclared_names"]) == (4, [bare.slug])
    assert "unknown key" in fleet["refused"][spoilt.slug]
    assert [worker["identity"] for worker in fleet["worker_list"]] == ["one@host:1", "two@host:2"]
    lines = shown.out.splitlines()
    assert lines[1].split()[:2] == ["definition", "words"]
    assert "installed nowhere" in lines[2]
    assert spoilt.slug in shown.err
    # Those that have ended are gone at once.
    assert await WorkerRepository(lab.services.control).list() == []


async def test_a_worker_tells_of_itself_once_its_table_is_there_and_forgets_the_dead(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    async with services.control.driver() as connection:
        await connection.execute("ALTER TABLE syncline.workers RENAME TO hidden")
    said = ""

    async def warned() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "worker registration failed" in said

    async with register_worker(services, identity="late@host:1", every_seconds=0.05):
        await eventually(warned)
        await asyncio.sleep(0.2)
        async with services.control.driver() as connection:
            await connection.execute("ALTER TABLE syncline.hidden RENAME TO workers")
            await connection.execute(
                "INSERT INTO syncline.workers (id, identity, task_queue, seen_at, syncline_version,"
                " python_version, providers) SELECT gen_random_uuid(), 'dead@host:9', 'q',"
                " now() - interval '1 hour', '0', '3', '[]'"
            )
        await told(services, 1)

        async def forgotten() -> bool:
            async with services.control.driver() as connection:
                found = await connection.fetch("SELECT identity FROM syncline.workers")
            return [row["identity"] for row in found] == ["late@host:1"]

        await eventually(forgotten)
    said += capsys.readouterr().out
    warnings = [line for line in said.splitlines() if "[warning" in line]
    assert len([line for line in warnings if "worker registration failed" in line]) == 1


async def test_a_worker_whose_cycles_have_the_whole_pool_is_still_there(services: Services) -> None:
    async with AsyncExitStack() as taken:
        for _ in range(services.settings.pool_size):
            await taken.enter_async_context(services.control.driver())
        async with register_worker(services, identity="busy@host:1"), asyncio.timeout(60):
            await told(services, 1)


async def test_providers_without_a_worker_says_so_at_once(idle_lab: SyncLab, syncline: CommandLine) -> None:
    async with asyncio.timeout(60):
        failed = await syncline("providers")
    assert (failed.status, failed.out) == (1, "")
    assert f"No worker polls task queue '{idle_lab.task_queue}'" in failed.err
    assert len(failed.err.splitlines()) == 1


def by_name(diagnosis: dict) -> dict[str, dict]:
    return {check["name"]: check for check in diagnosis["checks"]}


async def test_doctor_finds_all_well_and_says_what_it_looked_at(lab: SyncLab, syncline: CommandLine) -> None:
    await lab.add_graph(FakeProvider(), prepare=True)
    await ensure_reconciler(lab.client, task_queue=lab.task_queue, every_seconds=86_400)
    async with register_worker(lab.services, identity="one@host:1"), listen(lab.client, lab.services):
        await told(lab.services, 1)
        await eventually(lambda: listening(lab))
        diagnosis = await syncline.answer("doctor")
        printed = await syncline("doctor")
    checks = by_name(diagnosis)
    assert diagnosis["well"] is True
    # The tests' own role is a superuser, which no worker's should be, and they run outside a dev stack.
    unwell = {name: check["status"] for name, check in checks.items() if check["status"] != "ok"}
    assert unwell == dict.fromkeys(["write-db: role", "graph-db: role", "qdrant", "embedding"], "warn")
    assert checks.keys() == {
        "temporal", "namespace", "search attributes", "task queue", "runs", "reconciler", "schedules", "graphs", "clock",
        "worker", "worker: clock", "workers",
        "write-db", "write-db: connections", "write-db: clock", "write-db: open transactions", "write-db: listener",
        "write-db: role", "write-db: capture", "graph-db: role", "graph-db: schemas", "graph-db: locks",
        "write-db: rights", "graph-db: rights", "write-db: row level security", "graph-db: row level security",
        "write-db: its past",
        "graph-db", "graph-db: connections", "graph-db: clock",
        "control plane: migrations", "write migrations", "graph migrations", "engine migrations",
        "qdrant", "embedding", "embedding: graphs",
    }  # fmt: skip
    assert "PostgreSQL 1" in checks["write-db"]["found"]
    assert "1 graph up to date" in checks["graph migrations"]["found"]
    assert (printed.status, printed.err) == (0, "")
    assert "Qdrant Edge" in printed.out


async def listening(lab: SyncLab) -> bool:
    store = lab.services.store("write", None)
    return await listened_to(store, listener_name(lab.client.namespace, lab.services, store))


async def test_doctor_says_why_a_change_would_not_be_heard(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider(), prepare=True)

    async def found() -> Check | None:
        asked = datetime.now(UTC)
        health = await examine(lab.services, identity="w", namespace=lab.client.namespace, asked_at=asked)
        return next((check for check in health.checks if check.name == "write-db: listener"), None)

    nobody = await found()
    assert nobody is not None
    assert (nobody.status, nobody.found) == (CheckStatus.WARN, "no worker listens")
    assert "notification listener unavailable" in (nobody.fix or "")
    async with lab.services.store("write", None).driver() as connection:
        await connection.execute("DROP TABLE syncline.listener")
    before = await found()
    assert before is not None
    assert (before.status, before.found) == (CheckStatus.WARN, "none of its schemas notifies")
    assert "syncline migrate" in (before.fix or "")
    await lab.services.graphs.update(graph.slug, GraphChanges.model_validate({"schedule": {"notify": False}}))
    assert await found() is None


async def test_doctor_names_what_is_behind_and_who_holds_capture_back(
    lab: SyncLab, syncline: CommandLine
) -> None:
    ready = await lab.add_graph(FakeProvider(), prepare=True)
    late = await lab.add_graph("fake")
    async with lab.services.control.driver() as connection:
        await connection.execute("UPDATE syncline.sync_schema_version SET version_num = 'control_0000'")
        await connection.execute("DROP TABLE syncline.workers")
    handle = lab.client.get_schedule_handle(names.reconcile_schedules_id(lab.task_queue))
    await ensure_reconciler(lab.client, task_queue=lab.task_queue, every_seconds=86_400)
    await handle.pause(note="records are being edited")
    diagnosis = await syncline.answer("doctor", status=1)
    await handle.delete()
    checks = by_name(diagnosis)
    behind = {name for name, check in checks.items() if check["status"] == "fail"}
    assert behind == {
        "control plane: migrations", "write migrations", "graph migrations", "engine migrations",
    }  # fmt: skip
    assert checks["control plane: migrations"]["found"] == "it has control_0000"
    for side in ("write", "graph", "engine"):
        assert checks[f"{side} migrations"]["found"] == f"1 of 2 graphs behind: {late.slug}"
        assert "syncline migrate" in checks[f"{side} migrations"]["fix"]
    assert ready.slug not in str(diagnosis)
    assert checks["workers"]["status"] == "warn"
    assert "records are being edited" in checks["reconciler"]["found"]


async def test_doctor_works_while_half_of_everything_is_down(
    temporal_client: Client,
    temporal_environment: dict[str, str],
    new_database: Callable[..., str],
    unique: Callable[[str], str],
    tmp_path: Path,
) -> None:
    settings = Settings(
        write_dsn=SecretStr(new_database()),
        graph_dsn=SecretStr("postgresql://nobody:s3cret@127.0.0.1:1/nothing"),
        qdrant_url="http://127.0.0.1:1",
        qdrant_api_key=SecretStr("s3cret"),
        embedding="openai",
        embedding_url="http://127.0.0.1:1/v1",
        embedding_api_key=SecretStr("s3cret"),
        task_queue=unique("queue"),
        pool_size=1000,
    )
    syncline = CommandLine({**temporal_environment, "SYNCLINE_TASK_QUEUE": settings.task_queue}, tmp_path)
    async with Services.open(settings) as services, fast_worker(temporal_client, services):
        writer = await asyncpg.connect(settings.write_dsn.get_secret_value())
        await writer.execute("BEGIN; CREATE TABLE held (i int)")

        async def polled() -> bool:
            return bool(await pollers(temporal_client, settings.task_queue))

        await eventually(polled)
        said = await syncline("doctor", "--json")
        await writer.close()
    assert said.status == 1
    checks = by_name(said.json)
    failing = {name for name, check in checks.items() if check["status"] == "fail"}
    assert failing == {"reconciler", "graph-db", "control plane: migrations", "qdrant", "embedding"}
    assert all(checks[name]["fix"] for name in failing)
    assert "SYNCLINE_GRAPH_DSN" in checks["graph-db"]["fix"]
    assert checks["write-db"]["status"] == checks["task queue"]["status"] == "ok"
    assert checks["write-db: connections"]["status"] == "warn"
    assert re.match(r"the oldest writing one is \d+ s old", checks["write-db: open transactions"]["found"])
    assert "s3cret" not in said.out + said.err


async def test_doctor_without_a_worker_and_without_temporal_still_answers(
    idle_lab: SyncLab, syncline: CommandLine, tmp_path: Path
) -> None:
    checks = by_name(await syncline.answer("doctor", status=1))
    failing = {name for name, check in checks.items() if check["status"] == "fail"}
    assert failing == {"task queue", "reconciler", "worker"}
    assert "syncline worker" in checks["task queue"]["fix"]
    away = CommandLine({"TEMPORAL_ADDRESS": "127.0.0.1:1"}, tmp_path)
    checks = by_name(await away.answer("doctor", status=1))
    assert checks["temporal"]["status"] == "fail"
    assert "TEMPORAL_ADDRESS" in checks["temporal"]["fix"]
    assert {check["status"] for name, check in checks.items() if name != "temporal"} == {"skip"}


async def test_graphs_complete_from_the_schedules_and_nothing_from_a_server_that_is_away(
    idle_lab: SyncLab, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    graph = await idle_lab.add_graph()
    await ensure_schedule(idle_lab.client, graph, task_queue=idle_lab.task_queue)

    async def completed(command: str, address: str) -> list[str]:
        pressed_tab = {
            "_SYNCLINE_COMPLETE": "complete_bash",
            "COMP_WORDS": f"syncline {command} {graph.slug[:-1]}",
            "COMP_CWORD": str(1 + len(command.split())),
            "TEMPORAL_ADDRESS": address,
        }
        said = await CommandLine({**temporal_environment, **pressed_tab}, tmp_path)()
        assert said.err == ""
        return said.out.split()

    address = temporal_environment["TEMPORAL_ADDRESS"]

    async def listed() -> bool:
        return graph.slug in await completed("status", address)

    await eventually(listed)
    assert graph.slug in await completed("schedule trigger", address)
    assert await completed("runs", "127.0.0.1:1") == []


async def test_completion_is_shown_for_the_shell_that_is_asked_for(tmp_path: Path) -> None:
    syncline = CommandLine({"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}, tmp_path)
    assert "_SYNCLINE_COMPLETE=complete_zsh" in (await syncline("--show-completion", "zsh")).out
