"""Arrays of texts that name uuids and numbers: what is none keeps no table from being compared."""

from collections.abc import Callable
from pathlib import Path

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine
from syncline.maps.document import read_map
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

MAP = read_map(
    """
version: 1
name: members
tables:
  uuids: {source: w_uuids, types: {id: uuid}, id: same, stamped: false}
  numbers: {source: w_numbers, types: {id: integer}, id: same, stamped: false}
  decimals: {source: w_decimals, types: {id: numeric}, id: same, stamped: false}
  owners:
    source: w_owners
    references: {first: uuids}
    types: {first: uuid, d: jsonb}
    links:
      owner_uuids: {source: u, owner: o, member: m, parent: uuids}
      owner_numbers: {source: n, owner: o, member: m, parent: numbers, position: place}
      owner_decimals: {source: d, owner: o, member: m, parent: decimals}
""",
    source="members.yaml",
)
SOURCES = """
CREATE TABLE w_uuids (id uuid PRIMARY KEY); CREATE TABLE w_numbers (id int PRIMARY KEY); CREATE TABLE w_decimals (id numeric PRIMARY KEY);
CREATE TABLE w_owners (id text PRIMARY KEY, first uuid, u text[], n text[], d jsonb);
"""
TARGETS = """
CREATE TABLE uuids (id uuid PRIMARY KEY); CREATE TABLE numbers (id int PRIMARY KEY); CREATE TABLE decimals (id numeric PRIMARY KEY);
CREATE TABLE owners (id uuid PRIMARY KEY, key text, first uuid REFERENCES uuids, sync_version bigint, sync_run bigint);
CREATE TABLE owner_uuids (o uuid REFERENCES owners, m uuid REFERENCES uuids, PRIMARY KEY (o, m));
CREATE TABLE owner_numbers (o uuid REFERENCES owners, m int REFERENCES numbers, place int, PRIMARY KEY (o, m));
CREATE TABLE owner_decimals (o uuid REFERENCES owners, m numeric REFERENCES decimals, PRIMARY KEY (o, m));
"""
ONE, TWO = "ab000000-0000-4000-8000-000000000001", "ab000000-0000-4000-8000-000000000002"
SPELLED = f"""
INSERT INTO w_uuids VALUES ('{ONE}'), ('{TWO}'); INSERT INTO w_numbers VALUES (7), (-8); INSERT INTO w_decimals VALUES (1.50), (200);
INSERT INTO w_owners VALUES ('well', '{ONE}', '{{"{{{ONE.upper()}}}",{TWO.replace("-", "")}}}', '{{" +7 ",-08}}', '["1.5", "2e2 "]');
INSERT INTO w_owners VALUES ('waits', 'ab000000-0000-4000-8000-000000000003', '{{nobody,{ONE},"{{{ONE}"}}',
    '{{seven,7x,99999999999999999999,7}}', '["many", "1.5", "e5"]');
"""


async def test_a_parked_row_may_name_what_is_no_key(new_database: Callable[..., str], tmp_path: Path) -> None:
    async with bare_graph(new_database, tmp_path) as graph:
        await made_by(
            graph,
            write=f"SET search_path = kg; {SOURCES}",
            target=f"CREATE SCHEMA IF NOT EXISTS kg; SET search_path = kg; {TARGETS}",
        )
        await migrate_bookkeeping(graph.target, "kg")
        await adopt(graph.write, "kg", MAP)
        await write(graph, SPELLED)
        result = await SyncEngine(MAP).run_cycle(graph.context())
        assert ([table.error for table in result.tables if table.error], result.failures) == ([], 0)
        assert result.parked == 1
        for table in ("owner_uuids", "owner_numbers", "owner_decimals"):
            assert await read(graph, f"SELECT count(*) FROM {table}") == [(2,)], table
        context = graph.context()
        found = await verify(
            MAP, write=context.write, target=context.target, vectors=None, embedding="none", keys=5
        )
        said = [(each.name, each.problem, each.missing, each.extra, each.stale) for each in found.relations
                if each.problem or each.damaged]  # fmt: skip
        assert said == []
