"""A map that lists the rows of a table from now on, and a cycle that dies before each of them was read again."""

from collections.abc import Callable
from pathlib import Path

from syncline.capture.install.install import adopt
from syncline.engine import SchemaMap, SyncEngine
from syncline.maps.document import read_map
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import on_target, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by
from tests.kit.deaths import Deaths


def nodes(own: str) -> SchemaMap:
    return read_map(
        f"""
version: 1
name: graph
tables:
  facts: {{source: w_facts, columns: [title]}}
  nodes:
    source: w_nodes
    {own}
    columns: [title]
    references: {{up: {{parent: nodes, required: false}}}}
    links: {{node_facts: {{source: facts, owner: node, member: fact, parent: facts, rejected_by: rejections}}}}
  rejections: {{source: w_rejections, key: [node, fact], references: {{node: nodes, fact: facts}}}}
""",
        source="graph.yaml",
    )


SOURCES = """
CREATE TABLE w_facts (id text PRIMARY KEY, title text);
CREATE TABLE w_nodes (id text PRIMARY KEY, title text, up text, facts text[]);
CREATE TABLE w_rejections (node text, fact text, PRIMARY KEY (node, fact));
INSERT INTO w_facts VALUES ('f', 'fact'); INSERT INTO w_rejections VALUES ('b', 'f'), ('c', 'f');
INSERT INTO w_nodes VALUES ('a', 'a', NULL, '{f}'), ('b', 'b', 'late', '{f}'), ('c', 'c', NULL, '{f}'), ('d', 'd', 'a', '{}');
"""
TARGETS = """
CREATE TABLE facts (id uuid PRIMARY KEY, key text, title text, sync_version bigint, sync_run bigint);
CREATE TABLE nodes (id uuid PRIMARY KEY, key text, title text, up uuid REFERENCES nodes, sync_version bigint, sync_run bigint);
CREATE TABLE node_facts (node uuid REFERENCES nodes, fact uuid REFERENCES facts, PRIMARY KEY (node, fact));
CREATE TABLE rejections (node uuid REFERENCES nodes, fact uuid REFERENCES facts, sync_version bigint, sync_run bigint,
    PRIMARY KEY (node, fact));
"""
LINKS = "SELECT n.title FROM node_facts l JOIN nodes n ON n.id = l.node ORDER BY 1"
NO_KEY = "SELECT table_name, key, reason FROM sync_requeue WHERE array_position(key, NULL) > 0"


async def test_a_rejection_that_ends_meanwhile_asks_for_no_row_without_a_key(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    before, now = nodes("id: hash"), nodes("id: {rule: hash, beside: true}")
    async with bare_graph(new_database, tmp_path) as graph:
        await made_by(
            graph, write=f"SET search_path = kg; {SOURCES}", target=f"SET search_path = kg; {TARGETS}"
        )
        await migrate_bookkeeping(graph.target, "kg")
        await adopt(graph.write, "kg", before)
        await SyncEngine(before).run_cycle(graph.context())
        assert await read(graph, LINKS) == [("a",)]
        await adopt(graph.write, "kg", now)
        # Else what stands there would be listed at once.
        await on_target(graph, "ALTER TABLE nodes DROP key")
        control = await graph.connect_target()
        await Deaths.prepare(control)
        engine = SyncEngine(now)
        deaths = Deaths(graph, control, engine.run_cycle)
        await write(graph, "DELETE FROM w_rejections WHERE node = 'b'")
        await deaths.between_commits(1, 1)
        assert await read(graph, "SELECT * FROM sync_row") == []
        assert await read(graph, NO_KEY) == []
        result = await engine.run_cycle(graph.context())
        assert [table.error for table in result.tables if table.error] == []
        assert result.status is CycleStatus.DRAINED
        assert await read(graph, LINKS) == [("a",), ("b",)]
        context = graph.context()
        found = await verify(now, write=context.write, target=context.target, vectors=None, embedding="none")
        assert [str(relation) for relation in found.relations if relation.damaged or relation.problem] == []
        await control.close()
