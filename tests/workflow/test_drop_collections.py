"""Collections are dropped by command: it lists what goes, asks, and writes down who did it."""

from typing import Any

from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine


async def test_collections_are_listed_asked_about_dropped_audited_and_made_again(
    lab: SyncLab, syncline: CommandLine
) -> None:
    graph = await lab.add_graph("default", prepare=True)
    assert (await syncline("graph", "pause", graph.slug)).status == 0
    async with lab.services.store("write", None).driver() as connection:
        await connection.execute(
            f"INSERT INTO {graph.schema_name}.write_facts (id, content, dedup_status)"
            " SELECT 'f' || i, 'text ' || i, 'ready' FROM generate_series(1, 3) i"
        )
    await lab.run(graph)
    store, facts = lab.services.vector_store(None), f"{graph.qdrant_prefix}facts"
    assert await store.count(facts) == 3

    asked = await syncline("graph", "drop-collections", graph.slug, "--collection", "facts")
    assert asked.status == 1
    assert f"{facts}  3 points" in asked.err
    assert "embedded anew" in asked.err
    assert await store.count(facts) == 3
    unknown = await syncline("graph", "drop-collections", graph.slug, "--collection", "pictures", "--yes")
    assert (unknown.status, "has no collection pictures" in unknown.err) == (2, True)

    done: Any = await syncline.answer(
        "graph drop-collections", graph.slug, "--collection", "facts", "--yes", "--reason", "another model"
    )
    assert (done["dropped"], done["collections"]) == (True, [{"name": facts, "points": 3}])
    assert await store.count(facts) == 0
    page: Any = await syncline.answer("graph audit", graph.slug, "--limit", "1")
    [entry] = page["entries"]
    assert (entry["action"], entry["fields"], entry["why"]) == ("drop-collections", [facts], "another model")

    again = (await lab.run(graph)).result
    assert again is not None
    assert again.vectors.rebuilt == ("facts",)
    assert await store.count(facts) == 3
