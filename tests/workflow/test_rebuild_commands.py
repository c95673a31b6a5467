"""`syncline rebuild …`: the commands of an operator, from start to drop, over runs of workers."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.default import DefaultSyncProvider
from syncline import names
from syncline.testing.lab import SyncLab, eventually
from tests.kit.command_line import CommandLine


async def test_graph_is_rebuilt_switched_rolled_back_and_dropped_by_command(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph(DefaultSyncProvider(), prepare=True)
    slug, prefix, store = graph.slug, graph.qdrant_prefix, lab.services.vector_store(None)
    assert (await syncline("graph", "pause", slug)).status == 0
    none = await syncline("rebuild", "switch", slug)
    assert (none.status, "there is no rebuild" in none.err) == (2, True)
    async with lab.services.store("write", None).driver() as connection:
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_facts (id, content, dedup_status)"
            " SELECT 'f' || i, 'text ' || i, 'ready' FROM generate_series(1, 3) i"
        )
    await lab.run(graph)
    async with lab.services.store("graph", None).driver() as connection:
        await connection.execute(f"CREATE VIEW {graph.schema_name}.texts AS TABLE {graph.schema_name}.facts")
    before: Any = await syncline.answer("rebuild status", slug)
    assert (before["state"], before["command"]) == ("none", f"syncline rebuild start {slug}")

    started: Any = await syncline.answer("rebuild start", slug, "--rows-per-second", "1000")
    assert (started["rows_per_second"], bool(started["did"])) == (1000, True)
    # A paused graph has no runs that its shadow could follow: the command has started one.
    follower = lab.client.get_workflow_handle(names.shadow_workflow_id(slug))
    await follower.result()
    again = await syncline("rebuild", "start", slug)
    assert (again.status, "Done before" in again.out) == (0, True), again.out
    status: Any = await syncline.answer("rebuild status", slug)
    assert (status["state"], status["command"]) == ("ready", f"syncline rebuild switch {slug}")
    plain = await syncline("rebuild", "status", slug)
    assert f"next: syncline rebuild switch {slug}" in plain.out

    switched: Any = await syncline.answer("rebuild switch", slug, "--reason", "damaged")
    assert switched["state"] == "switched"
    kept = datetime.fromisoformat(switched["kept_until"]) - datetime.now(UTC)
    assert timedelta(days=6) < kept < timedelta(days=8)
    assert {alias["collection"] for alias in switched["aliases"]} == {
        f"{prefix}shadow_facts",
        f"{prefix}shadow_nodes",
    }
    assert await store.count(f"{prefix}facts.live") == 3
    back: Any = await syncline.answer("rebuild rollback", slug)
    assert {alias["collection"] for alias in back["aliases"]} == {f"{prefix}facts", f"{prefix}nodes"}
    assert (await syncline("rebuild", "switch", slug, "--keep-for", "a while")).status == 2
    late: Any = await syncline.answer("rebuild switch", slug, "--keep-for", "0s")
    assert (late["state"], late["command"]) == ("switched", f"syncline rebuild drop {slug}")
    seen: Any = await syncline.answer("status GRAPH", slug)
    [finding] = [finding for finding in seen["findings"] if finding["state"] == "kept too long"]
    assert finding["next"] == f"syncline rebuild drop {slug}"
    doctor = json.loads((await syncline("doctor", "--json")).out)
    [check] = [check for check in doctor["checks"] if check["name"] == "rebuilds"]
    assert (check["status"], f"graph {slug}" in check["found"]) == ("warn", True)
    longer: Any = await syncline.answer("rebuild switch", slug, "--keep-for", "2d")
    assert longer["did"] == ["The generation before is kept for 2 d."]
    seen = await syncline.answer("status GRAPH", slug)
    assert "kept too long" not in str(seen["findings"])
    asked = await syncline("rebuild", "drop", slug)
    assert asked.status == 1
    assert f"schema {graph.schema_name}_shadow" in asked.err

    async def followed() -> bool:
        return (await follower.describe()).close_time is not None

    await eventually(followed)
    dropped: Any = await syncline.answer("rebuild drop", slug, "--yes")
    assert dropped["state"] == "none"
    assert (await store.count(f"{prefix}facts"), await store.count(f"{prefix}facts.live")) == (0, 3)
    page: Any = await syncline.answer("graph audit", slug, "--limit", "20")
    entries = [entry for entry in page["entries"] if entry["action"].startswith("rebuild-")]
    assert [entry["action"] for entry in entries] == [
        "rebuild-drop",
        "rebuild-keep",
        "rebuild-switch",
        "rebuild-rollback",
        "rebuild-switch",
        "rebuild-start",
    ]
    assert entries[4]["why"] == "damaged"
    assert (await syncline("verify", slug)).status == 0
