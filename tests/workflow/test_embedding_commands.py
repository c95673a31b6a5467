"""`syncline embedding …`: the commands of an operator, from plan to drop."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio
from pydantic import SecretStr

from syncline.control.services import Services
from syncline.settings import Settings
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine


@pytest_asyncio.fixture(loop_scope="session")
async def services(
    control_template: str, new_database: Callable[..., str], unique: Callable[[str], str], tmp_path: Path
) -> AsyncIterator[Services]:
    """Those of a worker that offers a second embedding."""
    settings = Settings.model_validate(
        {
            "write_dsn": SecretStr(new_database()),
            "graph_dsn": SecretStr(new_database(control_template)),
            "qdrant_path": tmp_path / "qdrant",
            "task_queue": unique("queue"),
            "graceful_shutdown_seconds": 1,
            "pool_size": 4,
            "embedding_dimensions": 32,
            "second_embedding": "development",
            "second_embedding_dimensions": 64,
        }
    )
    async with Services.open(settings) as opened:
        yield opened


async def test_embedding_is_planned_started_switched_rolled_back_and_dropped_by_command(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph("default", prepare=True)
    slug, prefix, store = graph.slug, graph.qdrant_prefix, lab.services.vector_store(None)
    assert (await syncline("graph", "pause", slug)).status == 0
    early = await syncline("embedding", "plan", slug)
    assert early.status == 1
    assert "in the way: what its vectors are made with is not recorded" in early.out
    assert "32 dimensions (SYNCLINE_EMBEDDING)" in early.out  # a worker would record this one
    none = await syncline("embedding", "status", slug)
    assert "  not recorded yet\n" in none.out
    too_early = await syncline("embedding", "start", slug)
    assert "Once it has something to embed, " in too_early.err  # syncing an empty graph records nothing
    async with lab.services.store("write", None).driver() as connection:
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_facts (id, content, dedup_status)"
            " SELECT 'f' || i, 'text ' || i, 'ready' FROM generate_series(1, 3) i"
        )
    await lab.run(graph)

    plan: Any = await syncline.answer("embedding plan", slug)
    assert (plan["points"], plan["texts"], plan["obstacles"]) == (3, 3, [])
    assert plan["second"]["setting"] == "SYNCLINE_SECOND_EMBEDDING"
    shown = await syncline("embedding", "plan", slug)
    assert f"next: syncline embedding start {slug}" in shown.out
    one = await syncline("embedding", "switch", slug)
    assert (one.status, "one embedding only" in one.err) == (2, True)

    started: Any = await syncline.answer("embedding start", slug, "--reason", "a better model")
    assert [state["role"] for state in started["generations"]] == ["main", "second"]
    assert started["did"]
    again = await syncline("embedding", "start", slug)
    assert (again.status, "Done before" in again.out) == (0, True)
    refused = await syncline("graph", "set", slug, "--embedding", "development-hash-64")
    assert (refused.status, "embedding status" in refused.err) == (2, True)
    await lab.run(graph)
    status: Any = await syncline.answer("embedding status", slug)
    assert status["command"] == f"syncline embedding switch {slug}"
    assert [state["confirmed"] for state in status["generations"]] == [3, 3]

    switched: Any = await syncline.answer("embedding switch", slug)
    assert {alias["generation"] for alias in switched["aliases"]} == {2}
    back: Any = await syncline.answer("embedding rollback", slug)
    assert {alias["generation"] for alias in back["aliases"]} == {1}
    assert (await syncline("embedding", "switch", slug)).status == 0
    asked = await syncline("embedding", "drop", slug)
    assert asked.status == 1
    assert "development-hash-32: 3 points" in asked.err
    assert f"{prefix}facts.live" in asked.err
    assert await store.count(f"{prefix}facts") == 3
    dropped: Any = await syncline.answer("embedding drop", slug, "--yes")
    assert [state["embedding"] for state in dropped["generations"]] == ["development-hash-64"]
    assert await store.count(f"{prefix}facts") == 0
    assert await store.count(f"{prefix}facts.live") == 3
    page: Any = await syncline.answer("graph audit", slug, "--limit", "10")
    actions = [entry["action"] for entry in page["entries"]]
    assert [action for action in actions if action.startswith("embedding-")] == [
        "embedding-drop",
        "embedding-switch",
        "embedding-rollback",
        "embedding-switch",
        "embedding-start",
    ]
    [begun] = [entry for entry in page["entries"] if entry["action"] == "embedding-start"]
    assert (begun["fields"], begun["why"]) == (["development-hash-64"], "a better model")
    assert (await syncline("verify", slug)).status == 0
