"""A map by which rows keep their ids from now on, when the value that would tell a row has changed meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from syncline.capture.install.install import adopt
from syncline.engine import SchemaMap, SyncEngine
from syncline.maps.document import read_map
from syncline.messages.sync import CycleStatus
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

NATURAL = "natural: [uri], beside: true"
NOW = {
    "assigned": f"{{rule: assigned, type: uuid, {NATURAL}}}",
    "uuid5": f"{{rule: uuid5, namespace: 6ba7b811-9dad-11d1-80b4-00c04fd430c8, {NATURAL}}}",
    "expression": f"{{rule: expression, type: uuid, expression: md5($1)::uuid, {NATURAL}}}",
}


def sources(own: str) -> SchemaMap:
    return read_map(
        f"""
version: 1
name: library
tables:
  sources: {{source: w_sources, key: key, id: {own}, columns: [uri]}}
  quotes: {{source: w_quotes, references: {{source: sources}}}}
""",
        source="library.yaml",
    )


@pytest.mark.long(after=2)
@pytest.mark.parametrize("rule", NOW)
async def test_a_listed_row_keeps_its_id_though_its_natural_value_changed_unread(
    new_database: Callable[..., str], tmp_path: Path, rule: str
) -> None:
    before, now = sources("{rule: hash, beside: true}"), sources(NOW[rule])
    async with bare_graph(new_database, tmp_path) as graph:
        await made_by(
            graph,
            write=(
                "SET search_path = kg; CREATE TABLE w_sources (key text PRIMARY KEY, uri text);"
                "CREATE TABLE w_quotes (id text PRIMARY KEY, source text);"
                "INSERT INTO w_sources VALUES ('a', 'a'), ('b', 'b'); INSERT INTO w_quotes VALUES ('q', 'a')"
            ),
            target=(
                "SET search_path = kg;"
                "CREATE TABLE sources (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), uri text UNIQUE);"
                "CREATE TABLE quotes (id uuid PRIMARY KEY, key text, source uuid REFERENCES sources, sync_version bigint, sync_run bigint);"
            ),
        )
        await migrate_bookkeeping(graph.target, "kg")
        await adopt(graph.write, "kg", before)
        await SyncEngine(before).run_cycle(graph.context())
        ids = await read(graph, "SELECT id FROM sources ORDER BY uri")
        await write(
            graph,
            "UPDATE w_sources SET uri = 'changed' WHERE key = 'a'; INSERT INTO w_sources VALUES ('c', 'a')",
        )
        await adopt(graph.write, "kg", now)
        result = await SyncEngine(now).run_cycle(graph.context())
        assert [table.error for table in result.tables if table.error] == []
        assert result.status is CycleStatus.DRAINED
        assert await read(graph, "SELECT uri FROM sources ORDER BY 1") == [("a",), ("b",), ("changed",)]
        kept = await read(graph, "SELECT id FROM sources WHERE uri <> 'a' ORDER BY uri DESC")
        assert kept == ids
        assert await read(graph, "SELECT uri FROM sources s JOIN quotes q ON q.source = s.id") == [
            ("changed",)
        ]
        context = graph.context()
        found = await verify(now, write=context.write, target=context.target, vectors=None, embedding="none")
        assert [str(relation) for relation in found.relations if relation.damaged or relation.problem] == []
