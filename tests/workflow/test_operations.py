"""What operators ask for: done once whatever fails on the way, told plainly, and with Temporal alone."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus

from activities.operations import OperationActivities
from syncline import names
from syncline.control.graphs import Graph
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.devstack.temporal_server import temporal_binary
from syncline.errors import RunFailed
from syncline.messages.operator import (
    AddGraphInput,
    DiscardFailuresInput,
    FailuresActed,
    ListGraphsInput,
    RetryFailuresInput,
    VerifyGraphInput,
)
from syncline.messages.verification import Verification
from syncline.temporal.run import execute_and_wait
from syncline.testing.lab import Run, SyncLab, eventually
from tests.kit.command_line import CommandLine
from worker import create_operations_worker

ROOT = Path(__file__).parents[2]
LETTER = (
    "INSERT INTO sync_dead_letter (table_name, row_id, key, version, sqlstate, message, fingerprint, run_id)"
    " SELECT 'nodes', syncline.row_uuid(ARRAY[k]), ARRAY[k], 1, '22P02',"
    """ 'invalid input syntax for type integer: "a secret"', 'abc', 'run-1' FROM unnest($1::text[]) k"""
)
FORGED = (
    "INSERT INTO llm_usage (id, key, model_id, prompt_tokens, completion_tokens, created_at, sync_version)"
    " VALUES (syncline.key_uuid('x'), 'x', 'm', 1, 1, now(), 1)"
)


@asynccontextmanager
async def graph_db(lab: SyncLab) -> AsyncIterator[asyncpg.Connection]:
    dsn = lab.services.settings.graph_dsn.get_secret_value()
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "kg"})
    try:
        yield connection
    finally:
        await connection.close()


async def start(lab: SyncLab, workflow: str, typed: dict[str, object]) -> Run:
    """Start a run as `temporal workflow start` does."""
    return await lab.client.start_workflow(workflow, typed, id=lab.unique("typed"), task_queue=lab.task_queue)


@pytest.mark.long("test_damage_is_found_repaired_and_healed_by_the_next_cycle")
async def test_a_run_started_by_name_is_found_by_its_graph_and_shows_what_it_found(kg: SyncLab) -> None:
    async with graph_db(kg) as connection:
        await connection.execute(FORGED)
    run = await start(kg, names.VERIFY_GRAPH, {"graph": "kg", "tables": ["llm_usage"]})
    found = Verification.model_validate(await run.result())
    assert found.damaged == 1
    assert (await kg.attributes(run))["SynclineGraph"] == "kg"
    details = await kg.details(run)
    assert details.startswith("Verify graph kg\n\n1 compared in ")
    assert "**1 damaged**" in details
    assert "|\u00a0\u00a0llm_usage|\u00a0\u00a0rows|\u00a0\u00a00|\u00a0\u00a00|\u00a0\u00a01|" in details


@pytest.mark.long("test_damage_is_found_repaired_and_healed_by_the_next_cycle")
async def test_a_schedule_verifies_as_the_documentation_has_it(
    kg: SyncLab, temporal_environment: dict[str, str]
) -> None:
    documented = (ROOT / "docs/verify.md").read_text(encoding="utf-8")
    [recipe] = re.findall(r"^temporal schedule create .*?(?=\n```)", documented, re.DOTALL | re.MULTILINE)
    recipe = (
        recipe.replace("--task-queue syncline", f"--task-queue {kg.task_queue}")
        .replace("world", "kg")
        .replace("\\\n", " ")
    )
    for command in (recipe, "temporal schedule trigger --schedule-id verify-nightly/kg"):
        process = await asyncio.create_subprocess_exec(
            temporal_binary(), *shlex.split(command)[1:], env=temporal_environment, stdout=-1, stderr=-1
        )
        _, complaint = await process.communicate()
        assert process.returncode == 0, complaint.decode()

    async def verified() -> bool:
        query = "TemporalScheduledById='verify-nightly/kg' AND SynclineGraph='kg'"
        runs = [run async for run in kg.client.list_workflows(query)]
        return [run.status for run in runs] == [WorkflowExecutionStatus.COMPLETED]

    await eventually(verified)
    await kg.client.get_schedule_handle("verify-nightly/kg").delete()


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("workflow", "typed", "named"),
    [
        (names.VERIFY_GRAPH, {"grpah": "kg"}, "The input of VerifyGraph is invalid: 'graph'"),
        (names.RETRY_FAILURES, {"graph": "kg", "who": "a", "why": "b"}, "Select dead letters by"),
        (names.ADD_GRAPH, {"draft": {"slug": "Bad"}}, "'draft': 'slug':"),
        (names.CHANGE_GRAPH, {"graph": "kg", "schedule": {"cron": "whenever"}}, "schedule.cron"),
        (names.LIST_FAILURES, {"graph": "moon"}, "No graph has the slug or id 'moon'"),
    ],
)
async def test_what_cannot_be_done_fails_the_run_at_once_and_says_why(
    kg: SyncLab, workflow: str, typed: dict[str, object], named: str
) -> None:
    run = await start(kg, workflow, typed)
    async with asyncio.timeout(20):
        error = await kg.failure(run)
    assert named in error.message
    assert error.non_retryable or "WORKFLOW_TASK_FAILED" not in await kg.events(run)


class AnswerLost(OperationActivities):
    """Does its work, and then its first answer never reaches the server."""

    def _lose(self) -> None:
        if activity.info().attempt == 1:
            raise ConnectionError("the answer was lost")

    @activity.defn(name=names.RETRY_FAILURES_ACTIVITY)
    async def retry_failures(self, request: RetryFailuresInput) -> FailuresActed:
        done = await super().retry_failures(request)
        self._lose()
        return done

    @activity.defn(name=names.DISCARD_FAILURES_ACTIVITY)
    async def discard_failures(self, request: DiscardFailuresInput) -> FailuresActed:
        done = await super().discard_failures(request)
        self._lose()
        return done

    @activity.defn(name=names.VERIFY_GRAPH_ACTIVITY)
    async def verify_graph(self, request: VerifyGraphInput) -> Verification:
        found = await super().verify_graph(request)
        self._lose()
        return found

    @activity.defn(name=names.ADD_GRAPH_ACTIVITY)
    async def add_graph(self, request: AddGraphInput) -> Graph:
        await self._services.graphs.ensure(request.draft, prepare=self._services.prepare_graph)
        self._lose()
        return await super().add_graph(request)


@pytest.mark.long("test_damage_is_found_repaired_and_healed_by_the_next_cycle")
async def test_what_is_tried_again_is_done_and_audited_once_and_told_as_it_was(
    kg_idle: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    lab, syncline = kg_idle, temporal_only(kg_idle)
    async with graph_db(lab) as connection:
        await connection.execute(LETTER, ["n1", "n2"])
        await connection.execute(FORGED)
    forgetful = create_operations_worker(lab.client, AnswerLost(lab.services), lab.services.settings)
    async with lab.worker(), forgetful:
        retried = await syncline("failures", "retry", "kg", "--all", "--reason", "gone")
        assert (retried.status, retried.out) == (0, "2 rows to be retried in the next cycle\n")
        discarded = await syncline("failures", "discard", "kg", "--all", "--reason", "tired")
        assert (discarded.status, discarded.out) == (0, "2 rows discarded\n")
        repaired = await syncline("verify", "kg", "--repair", "--reason", "forged", "--no-vectors")
        assert repaired.status == 1
        assert "0 damaged, 1 queued for repair" in repaired.out
        added = await syncline("graph", "add", lab.unique("mars"), "--every-seconds", "86400")
        assert added.status == 0, added.err
    async with graph_db(lab) as connection:
        audit = await connection.fetch("SELECT action, rows, why, run_id FROM sync_audit ORDER BY number")
    assert [tuple(line)[:3] for line in audit] == [
        ("retry", 2, "gone"),
        ("discard", 2, "tired"),
        ("repair rows", 1, "forged"),
    ]
    runs = [run async for run in lab.client.list_workflows("SynclineGraph='kg'")]
    assert {line["run_id"] for line in audit} <= {run.run_id for run in runs}


async def test_damage_is_found_repaired_and_healed_by_the_next_cycle(
    kg: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    syncline, graph = temporal_only(kg), await kg.services.graphs.get("kg")
    write = await asyncpg.connect(
        kg.services.settings.write_dsn.get_secret_value(), server_settings={"search_path": "kg"}
    )
    await write.execute("INSERT INTO write_nodes (id, concept) VALUES ('n1', 'one'), ('n2', 'two')")
    await write.close()
    await kg.run(graph)
    async with graph_db(kg) as connection:
        await connection.execute("UPDATE nodes SET concept = 'forged' WHERE key = 'n1'")
    found = await syncline("verify", "kg")
    assert (found.status, "nodes (rows), stale: n1" in found.out) == (1, True), found.out + found.err
    assert (await syncline("verify", "kg", "--repair")).status == 1
    await kg.run(graph)
    healed = await syncline("verify", "kg")
    assert healed.status == 0, healed.out + healed.err
    async with graph_db(kg) as connection:
        assert await connection.fetchval("SELECT concept FROM nodes WHERE key = 'n1'") == "one"


async def test_without_a_worker_a_sentence_comes_soon_and_nothing_is_started(
    kg_idle: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    began = time.monotonic()
    failed = await temporal_only(kg_idle)("verify", "kg")
    assert time.monotonic() - began < 40
    assert (failed.status, failed.out) == (1, "")
    assert failed.err == (
        f"error: No worker polls task queue '{kg_idle.task_queue}' of namespace 'default'."
        " Start one: `syncline worker`.\n"
    )
    query = f"TaskQueue='{kg_idle.task_queue}'"
    assert [run async for run in kg_idle.client.list_workflows(query)] == []


async def test_a_worker_that_is_gone_is_not_waited_for_in_silence(
    kg_idle: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    async with kg_idle.worker():
        pass
    # The server forgets who polled after minutes only.
    failed = await temporal_only(kg_idle)(
        "failures", "retry", "kg", "--all", "--reason", "x", "--timeout", "6"
    )
    assert failed.status == 1
    assert failed.err.splitlines()[0].removeprefix("error: ").startswith("No worker ")


async def test_a_result_of_another_release_is_a_sentence(kg: SyncLab) -> None:
    asked = ListGraphsInput()
    with pytest.raises(RunFailed, match=r"has ended, but its result .* another release"):
        await execute_and_wait(
            kg.client, asked.workflow, Graph, asked, workflow_id=kg.unique("typed"),
            task_queue=kg.task_queue, seconds=20, summary=asked.summary,
        )  # fmt: skip


async def test_a_store_that_is_away_is_told_while_it_is_tried_again(
    kg: SyncLab, temporal_only: Callable[[SyncLab], CommandLine], postgres_server: EmbeddedPostgres
) -> None:
    database = kg.services.settings.graph_dsn.get_secret_value().split("/")[3].split("?")[0]
    postgres_server.psql(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
    postgres_server.psql(
        f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
    )
    failed = await temporal_only(kg)("failures", "retry", "kg", "--all", "--reason", "x", "--timeout", "6")
    postgres_server.psql(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    assert failed.status == 1
    *told, error = failed.err.splitlines()
    assert told
    assert all(line.startswith("Postgres store 'graph'") for line in told)
    assert all(line.endswith("; it is retried.") for line in told)
    # The server does not start a try that the run has no time for.
    assert error.startswith("error: Postgres store 'graph'")


@pytest.mark.long("test_damage_is_found_repaired_and_healed_by_the_next_cycle")
async def test_ctrl_c_cancels_the_run_and_nothing_is_done(
    kg: SyncLab, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {
        **temporal_environment,
        "SYNCLINE_TASK_QUEUE": kg.task_queue,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
    }
    async with graph_db(kg) as connection, graph_db(kg) as holder:
        await connection.execute(LETTER, ["n1"])
        async with holder.transaction():
            await holder.execute("LOCK TABLE sync_dead_letter IN ACCESS EXCLUSIVE MODE")
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "from syncline.cli import app; app()",
                "failures", "retry", "kg", "--all", "--reason", "x",
                env=environment, cwd=tmp_path, stdout=-1, stderr=-1,
            )  # fmt: skip

            async def waits_for_the_lock() -> bool:
                asked = "SELECT count(*) FROM pg_locks WHERE relation = $1::regclass AND NOT granted"
                return bool(await holder.fetchval(asked, "sync_dead_letter"))

            await eventually(waits_for_the_lock)
            process.send_signal(signal.SIGINT)
            _, said = await process.communicate()
            assert process.returncode != 0
            assert b"Traceback" not in said, said.decode()
            assert b"is cancelled." in said
            [run] = [
                run
                async for run in kg.client.list_workflows(
                    "WorkflowType='RetryFailures' AND SynclineGraph='kg' AND TaskQueue='"
                    + kg.task_queue
                    + "'"
                )
            ]
            handle = kg.client.get_workflow_handle(run.id)

            async def cancelled() -> bool:
                return (await handle.describe()).status is WorkflowExecutionStatus.CANCELED

            await eventually(cancelled)
        assert await connection.fetchval("SELECT count(*) FROM sync_audit") == 0
        assert await connection.fetchval("SELECT attempts FROM sync_dead_letter") == 1


COMMANDS = (
    ("failures", "summary", "kg"),
    ("failures", "list", "kg"),
    ("failures", "show", "kg", "nodes", "n1"),
    ("explain", "kg", "nodes", "n1"),
    ("failures", "retry", "kg", "--all", "--reason", "x"),
    ("failures", "audit", "kg"),
    ("failures", "discard", "kg", "nodes", "n1", "--reason", "x"),
    ("parked", "kg"),
    ("parked", "kg", "--table", "nodes"),
    ("verify", "kg", "--no-vectors"),
    ("graph", "list"),
    ("graph", "show", "kg"),
    ("graph", "set", "kg", "--name", "x"),
    ("graph", "archive", "kg"),
)


@pytest.mark.long("test_damage_is_found_repaired_and_healed_by_the_next_cycle")
async def test_no_command_of_an_operator_connects_to_a_store_or_leaves_values_in_a_history(
    kg: SyncLab, temporal_environment: dict[str, str], tmp_path: Path
) -> None:
    connected = []
    server = await asyncio.start_server(lambda _, writer: connected.append(writer.close()), "127.0.0.1", 0)
    nowhere = f"postgresql://u:p@127.0.0.1:{server.sockets[0].getsockname()[1]}/d"
    async with graph_db(kg) as connection:
        await connection.execute(LETTER, ["n1"])
    script = """
import json, sys
from typer.testing import CliRunner
from syncline.cli import app
for command in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, command)
    print(command, done.exit_code, done.stdout, done.stderr, flush=True)
    assert done.exit_code == 0, (done.output, done.exception)
from syncline.process_exit import end_process
end_process(0)
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, json.dumps(COMMANDS),
        env={
            **temporal_environment,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SYNCLINE_TASK_QUEUE": kg.task_queue,
            "SYNCLINE_WRITE_DSN": nowhere,
            "SYNCLINE_GRAPH_DSN": nowhere,
        },
        cwd=tmp_path, stdout=-1, stderr=-1,
    )  # fmt: skip
    out, said = await process.communicate()
    assert process.returncode == 0, (out + said).decode()
    server.close()
    assert connected == []
    async for run in kg.client.list_workflows(f"TaskQueue='{kg.task_queue}'"):
        history = await kg.client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history()
        assert "a secret" not in history.to_json()
