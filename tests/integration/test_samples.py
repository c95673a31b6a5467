"""Samples loaded into a real write-db: complete, all or nothing, and the second time without a change."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.errors import SampleInvalid
from syncline.migrations import migrate_write
from syncline.samples import SampleTable, WordNet, World, holds_rows, load_sample
from syncline.stores.postgres import PostgresStore
from tests.kit.small_wordnet import SMALL, write_small_wordnet

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "order"
"""A word that SQL reserves, so that a name which somebody forgot to quote shows."""
TABLES = ("write_raw_sources", "write_facts", "write_fact_sources", "write_nodes", "write_edges")
DANGLING = {
    "parent": "SELECT count(*) FROM write_nodes n WHERE parent_id IS NOT NULL "
    "AND NOT EXISTS (SELECT FROM write_nodes p WHERE p.id = n.parent_id)",
    "end of an edge": "SELECT count(*) FROM write_edges e WHERE "
    "NOT EXISTS (SELECT FROM write_nodes n WHERE n.id = e.source_node_id) "
    "OR NOT EXISTS (SELECT FROM write_nodes n WHERE n.id = e.target_node_id)",
    "fact of a node": "SELECT count(*) FROM write_nodes n, unnest(fact_ids) AS link (fact_id) "
    "WHERE NOT EXISTS (SELECT FROM write_facts f WHERE f.id = link.fact_id)",
    "fact of an edge": "SELECT count(*) FROM write_edges e, unnest(fact_ids) AS link (fact_id) "
    "WHERE NOT EXISTS (SELECT FROM write_facts f WHERE f.id = link.fact_id)",
    "source of a fact": "SELECT count(*) FROM write_facts f "
    "WHERE NOT EXISTS (SELECT FROM write_fact_sources s WHERE s.fact_id = f.id)",
    "fact or raw source of a link": "SELECT count(*) FROM write_fact_sources s WHERE "
    "NOT EXISTS (SELECT FROM write_facts f WHERE f.id = s.fact_id) "
    "OR NOT EXISTS (SELECT FROM write_raw_sources r WHERE r.id = s.raw_source_id)",
}


class Nodes:
    """A sample of given nodes: id and concept."""

    name = "nodes"

    def __init__(self, *nodes: tuple[str, str | None]) -> None:
        self._nodes = nodes

    def tables(self) -> Iterator[SampleTable]:
        yield SampleTable("write_nodes", ("id", "concept"), iter(self._nodes))


@pytest_asyncio.fixture(loop_scope="session")
async def store(new_database: Callable[..., str]) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore("write", SecretStr(new_database()), pool_size=2, application_name="syncline-test")
    await migrate_write(opened, SCHEMA)
    yield opened
    await opened.close()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small_wordnet(tmp_path)


@pytest.fixture
def wordnet_files() -> Path:
    folder = ROOT / ".wordnet/dict"
    if not (folder / "data.noun").is_file():
        pytest.fail(f"{folder} has no WordNet files; run `make wordnet` (or `make prove`, which does).")
    return folder


async def query(store: PostgresStore, sql: str) -> list[asyncpg.Record]:
    async with store.driver() as connection, connection.transaction():
        await connection.execute(f'SET LOCAL search_path = "{SCHEMA}"')
        return list(await connection.fetch(sql))


async def counts(store: PostgresStore) -> dict[str, int]:
    return {table: (await query(store, f"SELECT count(*) FROM {table}"))[0][0] for table in TABLES}


async def footprint(store: PostgresStore) -> list[list[asyncpg.Record]]:
    """Where every row version lies and which transaction wrote it."""
    return [
        await query(store, f"SELECT ctid::text, xmin::text, sync_xid::text FROM {table} ORDER BY ctid")
        for table in TABLES
    ]


async def dangling(store: PostgresStore) -> dict[str, int]:
    found = {name: (await query(store, sql))[0][0] for name, sql in DANGLING.items()}
    return {name: number for name, number in found.items() if number}


def pointers_and_synsets(folder: Path) -> tuple[int, int]:
    """Count them by regular expression, without the parser; a pointer repeated in a line counts once."""
    pointer = re.compile(rb"\S+ \d{8} [nvasr] [0-9a-f]{4}(?= )")
    pointers = synsets = 0
    for name in SMALL:
        for line in (folder / name).read_bytes().splitlines():
            if re.match(rb"\d{8} ", line):
                synsets += 1
                pointers += len(set(pointer.findall(line[: line.index(b"|")])))
    return pointers, synsets


@pytest.mark.long("test_loading_wordnet_twice_changes_nothing")
async def test_the_world_is_loaded_whole_and_the_second_time_nothing_changes(store: PostgresStore) -> None:
    changed = await load_sample(store, SCHEMA, World())
    assert changed == {table.table: len(list(table.rows)) for table in World().tables()}
    assert await counts(store) == changed
    assert await dangling(store) == {}
    before = await footprint(store)
    assert await load_sample(store, SCHEMA, World()) == dict.fromkeys(TABLES, 0)
    assert await footprint(store) == before
    # JSON and flags arrive as they are.
    [row] = await query(
        store,
        "SELECT metadata ->> 'flag' AS flag, jsonb_typeof(metadata) AS type FROM write_nodes "
        "WHERE id = 'country:FR'",
    )
    assert (row["flag"], row["type"]) == ("🇫🇷", "object")


@pytest.mark.proof
async def test_wordnet_is_loaded_whole(store: PostgresStore, wordnet_files: Path) -> None:
    pointers, synsets = pointers_and_synsets(wordnet_files)
    changed = await load_sample(store, SCHEMA, WordNet(wordnet_files))
    assert changed == {
        "write_raw_sources": 4,
        "write_facts": synsets,
        "write_fact_sources": synsets,
        "write_nodes": synsets,
        "write_edges": pointers,
    }
    assert synsets == 117_791
    assert await counts(store) == changed
    assert await dangling(store) == {}


async def test_loading_wordnet_twice_changes_nothing(store: PostgresStore, small: Path) -> None:
    await load_sample(store, SCHEMA, WordNet(small))
    before = await footprint(store)
    assert await load_sample(store, SCHEMA, WordNet(small)) == dict.fromkeys(TABLES, 0)
    assert await footprint(store) == before


async def test_only_what_the_source_changed_is_written(store: PostgresStore, small: Path) -> None:
    await load_sample(store, SCHEMA, WordNet(small))
    versions = "SELECT id, sync_xid::text, updated_at FROM write_nodes ORDER BY id"
    before = await query(store, versions)
    (small / "data.adj").write_text("00001740 00 a 01 able 0 000 | having the power\n")
    changed = await load_sample(store, SCHEMA, WordNet(small))
    assert changed == {
        "write_raw_sources": 1,  # its content hash
        "write_facts": 1,
        "write_fact_sources": 0,
        "write_nodes": 1,
        "write_edges": 0,
    }
    moved = {new["id"] for old, new in zip(before, await query(store, versions), strict=True) if old != new}
    assert moved == {"synset:a:00001740"}
    [row] = await query(
        store,
        "SELECT definition, updated_at > created_at AS later FROM write_nodes WHERE node_type = 'adjective'",
    )
    assert (row["definition"], row["later"]) == ("having the power", True)


async def test_rows_of_others_and_their_columns_are_left_alone(store: PostgresStore) -> None:
    await query(
        store,
        "INSERT INTO write_nodes (id, concept, visibility) VALUES ('mine', 'Mine', 'private'), "
        "('theirs', 'Old', 'private') RETURNING id",
    )
    assert await load_sample(store, SCHEMA, Nodes(("theirs", "New"))) == {"write_nodes": 1}
    rows = await query(store, "SELECT id, concept, visibility FROM write_nodes ORDER BY id")
    assert [tuple(row) for row in rows] == [("mine", "Mine", "private"), ("theirs", "New", "private")]


async def test_a_malformed_line_leaves_nothing_behind(store: PostgresStore, small: Path) -> None:
    with (small / "data.adv").open("a") as file:
        file.write("00001900 02 r 01 broken 0 001 | no pointer\n")
    with pytest.raises(SampleInvalid, match=r"data\.adv, line 2: the line ends before its 1 pointers do"):
        await load_sample(store, SCHEMA, WordNet(small))
    assert await counts(store) == dict.fromkeys(TABLES, 0)
    (small / "data.adv").write_text(SMALL["data.adv"])
    assert (await load_sample(store, SCHEMA, WordNet(small)))["write_nodes"] == 5


async def test_a_schema_without_the_tables_is_named(store: PostgresStore) -> None:
    with pytest.raises(SampleInvalid, match=r"no table nowhere\.write_nodes .* `syncline migrate`"):
        await load_sample(store, "nowhere", Nodes(("a", "A")))


async def test_holds_rows_says_whether_a_sample_may_have_been_edited(store: PostgresStore) -> None:
    """A stack that starts again leaves such a sample alone."""
    nodes = Nodes(("n1", "one"))
    assert not await holds_rows(store, SCHEMA, nodes)
    await load_sample(store, SCHEMA, nodes)
    assert await holds_rows(store, SCHEMA, nodes)
