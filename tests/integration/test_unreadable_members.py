"""Arrays of texts that name uuids and numbers: what is none keeps no table from being compared."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid5

from syncline.capture.install.install import adopt
from syncline.engine import SyncEngine
from syncline.maps.document import read_map
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import read, write
from syncline.verify import verify
from tests.integration.test_shapes import made
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


NAMESPACE = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
ZERO = "00000000-0000-0000-0000-000000000000"
NAMED = f"""
  threads: {{source: thread, types: {{id: uuid}}, id: same, columns: [title]}}
  prices: {{source: price, types: {{id: integer}}, columns: [title]}}
  runs:
    source: run
    types: {{prices: jsonb, others: "varchar[]"}}
    links:
      run_threads: {{source: threads, owner: run, member: thread, parent: threads, unreadable: {{rule: uuid5, namespace: {NAMESPACE}, key: {ZERO}}}, rejected_by: hidden}}
      run_others: {{source: others, owner: run, member: thread, parent: threads, unreadable: none, position: place, owned: ours}}
      run_prices: {{source: prices, owner: run, member: price, parent: prices, unreadable: {{rule: key, key: "7"}}}}
  hidden:
    source: hide
    key: [run, thread]
    types: {{thread: uuid}}
    references: {{run: runs, thread: threads}}
"""
NAMED_SOURCES = """
CREATE TABLE thread (id uuid PRIMARY KEY, title text);
CREATE TABLE price (id integer PRIMARY KEY, title text);
CREATE TABLE run (id text PRIMARY KEY, threads text[], others varchar[], prices jsonb);
CREATE TABLE hide (run text, thread uuid, PRIMARY KEY (run, thread));
"""
NAMED_TARGETS = """
CREATE TABLE threads (id uuid PRIMARY KEY, title text, sync_version bigint, sync_run bigint);
CREATE TABLE prices (id uuid PRIMARY KEY, key integer, title text, sync_version bigint, sync_run bigint);
CREATE TABLE runs (id uuid PRIMARY KEY, key text, sync_version bigint, sync_run bigint);
CREATE TABLE run_threads (run uuid REFERENCES runs, thread uuid REFERENCES threads, PRIMARY KEY (run, thread));
CREATE TABLE run_others (run uuid REFERENCES runs, thread uuid REFERENCES threads, place integer, PRIMARY KEY (run, thread));
CREATE TABLE run_prices (run uuid REFERENCES runs, price uuid REFERENCES prices, PRIMARY KEY (run, price));
CREATE TABLE hidden (run uuid REFERENCES runs, thread uuid REFERENCES threads, sync_version bigint, sync_run bigint, PRIMARY KEY (run, thread));
"""
MADE = """
SELECT coalesce((SELECT string_agg(title, ' ' ORDER BY title) FROM kg.run_threads JOIN kg.threads t ON t.id = thread), '') AS threads,
       coalesce((SELECT string_agg(title || place, ' ' ORDER BY place) FROM kg.run_others JOIN kg.threads t ON t.id = thread), '') AS others,
       coalesce((SELECT string_agg(title, ' ' ORDER BY title) FROM kg.run_prices JOIN kg.prices t ON t.id = price), '') AS prices
"""


async def test_a_member_that_is_no_key_names_what_the_map_says(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    async with bare_graph(new_database, tmp_path) as graph:
        site = await made(graph, NAMED, source=NAMED_SOURCES, target=NAMED_TARGETS)
        assert await site.misfits() == {}
        a, run = "0a000000-0000-4000-8000-00000000000a", str(uuid5(NAMESPACE, "run/7"))
        late = str(uuid5(NAMESPACE, "late"))
        await write(
            graph,
            f"INSERT INTO thread VALUES ('{a}', 'A'), ('{ZERO}', 'nothing'), ('{run}', 'run');"
            "INSERT INTO price VALUES (7, 'seven'), (8, 'eight');"
            f"INSERT INTO run VALUES ('r', ARRAY[upper('{a}'), 'run/7', '{run}', '', 'late', NULL],"
            f" ARRAY['x', '{a}', 'y', '{{{a}}}', '{run}'], '[\"8\", \"many\", \"9999999999\", null, 7.0]')",
        )
        result = await site.cycle()
        # 7.0 is no integer as a text, and so names what all those do.
        assert (result.dead_letters, result.parked) == (0, 1)
        assert await site.rows(MADE) == [
            {"threads": "A nothing run", "others": "A2 run5", "prices": "eight seven"}
        ]
        await site.equal()
        # What a text names arrives, leaves and is rejected, by one that is no key either.
        await write(
            graph, f"INSERT INTO thread VALUES ('{late}', 'late'); DELETE FROM thread WHERE id = '{ZERO}'"
        )
        assert (await site.cycle()).parked == 1
        assert (await site.rows(MADE))[0]["threads"] == "A late run"
        await site.equal()
        await write(graph, f"INSERT INTO hide VALUES ('r', '{late}'), ('r', '{a}')")
        await site.cycle()
        assert (await site.rows(MADE))[0]["threads"] == "run"
        await site.equal()
        await write(
            graph, f"DELETE FROM hide WHERE thread = '{late}'; UPDATE run SET others = '{{x}}', prices = '[]'"
        )
        await site.cycle()
        assert await site.rows(MADE) == [{"threads": "late run", "others": "", "prices": ""}]
        await site.equal()
