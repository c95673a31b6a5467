"""More rows are gone from a write-db than leave unasked, as after a restore: none does until an operator agrees."""

from dataclasses import replace

from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.messages.sync import SyncResult
from syncline.run_text import caveats
from syncline.testing.graphs import TestGraph, read, write
from syncline.testing.truth import differences
from syncline.verify import verify

SEED = """
INSERT INTO write_nodes (id, concept) SELECT 'n' || i, 'node ' || i FROM generate_series(1, 400) i;
INSERT INTO write_facts (id, content, dedup_status) SELECT 'f' || i, 'fact ' || i, 'ready' FROM generate_series(1, 400) i
"""
# As it was restored: the rows are gone, and no deleted key tells of them.
RESTORED = """
DELETE FROM write_nodes WHERE id LIKE 'n1%';
DELETE FROM write_facts WHERE id LIKE 'f9%';
TRUNCATE sync_tombstone;
UPDATE sync_position SET number = number - 1, tokens = tokens[2:]
"""


async def cycle(graph: TestGraph, *, share: float = 0.2) -> SyncResult:
    return await run_cycle(replace(graph.context(), removal_share=share))


async def test_more_than_a_share_of_a_table_leaves_only_when_asked(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, "UPDATE write_nodes SET concept = 'x' WHERE id = 'n2'")
    await cycle(graph)
    await write(graph, RESTORED)
    result = await cycle(graph)
    [withheld] = result.withheld
    assert (withheld.table, withheld.rows, withheld.of) == ("nodes", 111, 400)
    assert ["--repair" in sentence for sentence in caveats(result) if sentence.startswith("nodes: 111")] == [
        True
    ]
    assert len(await read(graph, "SELECT key FROM nodes")) == 400
    assert len(await read(graph, "SELECT key FROM facts")) == 389
    # It is said in idle cycles too, and changes are synced as ever.
    result = await cycle(graph)
    assert (result.idle, len(result.withheld)) == (True, 1)
    await write(graph, "INSERT INTO write_nodes (id, concept) VALUES ('n1', 'is back')")
    assert (await cycle(graph)).rows == 1
    context = graph.context()
    found = await verify(
        KNOWLEDGE_GRAPH,
        write=context.write,
        target=context.target,
        vectors=context.vectors,
        embedding=context.embedding.name,
        repair=True,
        who="operator",
        why="restored from the night",
        run_id="a run",
    )
    assert sum(relation.queued for relation in found.relations) >= 110
    result = await cycle(graph)
    assert result.withheld == ()
    assert await differences(graph) == []


async def test_share_that_is_allowed_leaves(graph: TestGraph) -> None:
    await write(graph, SEED)
    await cycle(graph)
    await write(graph, RESTORED)
    result = await cycle(graph, share=0.5)
    assert result.rescanned
    assert result.withheld == ()
    assert await differences(graph) == []
