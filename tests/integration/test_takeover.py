"""A target that another engine filled: compared, taken over, ids kept, rows that are equal not written."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.control.audit import Actor
from syncline.engine import (
    Column,
    Links,
    Reference,
    SchemaMap,
    Stat,
    Stats,
    SyncEngine,
    TableMap,
    VectorProjection,
)
from syncline.engine.keys import key_uuid
from syncline.engine.strangers import strange_condition, ways_to_leave
from syncline.errors import TakeoverRefused
from syncline.maps.ids import Id, IdRule
from syncline.maps.table_map import Ownership
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.takeover import Takeover
from syncline.messages.verification import RelationKind, Verification
from syncline.migrations import migrate_bookkeeping
from syncline.stores.vectors import PointPayload
from syncline.testing.graphs import TestGraph, on_target, read
from syncline.verify import verify
from syncline.verify.takeover import take_over
from tests.kit.bare_graph import bare_graph, made_by

NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
SHOP = SchemaMap(
    name="shop",
    tables=(
        TableMap(
            name="makers",
            source="maker_rows",
            key=("nr",),
            types={"nr": "bigint"},
            id=Id(rule=IdRule.SAME, column="nr"),
            stamped=False,
            columns=(Column(name="name"),),
        ),
        TableMap(
            name="tags",
            source="tag_rows",
            id=Id(rule=IdRule.UUID5, namespace=str(NAMESPACE)),
            stamped=False,
            columns=(Column(name="word"),),
        ),
        TableMap(
            name="parts",
            source="part_rows",
            types={"maker": "bigint"},
            id=Id(rule=IdRule.HASH),
            stamped=False,
            columns=(Column(name="title"),),
            references=(Reference(column="maker", parent="makers", required=True, target="maker_nr"),),
            links=(Links(table="part_tags", source="tags", owner="part_id", member="tag_id", parent="tags"),),
            vector=VectorProjection(collection="parts", text="t.title", payload={"key": "t.key"}),
        ),
    ),
)
SOURCE = """
SET search_path = kg;
CREATE TABLE maker_rows (nr bigint PRIMARY KEY, name text);
CREATE TABLE tag_rows (id text PRIMARY KEY, word text);
CREATE TABLE part_rows (id text PRIMARY KEY, title text, maker bigint NOT NULL, tags text[]);
INSERT INTO maker_rows VALUES (1, 'Ada'), (2, 'Bo'), (3, 'Cy');
INSERT INTO tag_rows VALUES ('red', 'Red'), ('blue', 'Blue');
INSERT INTO part_rows VALUES
    ('p1', 'bolt', 1, '{red}'), ('p2', 'nut', 1, '{red,blue}'), ('p3', 'gear', 2, '{}'), ('p4', 'cog', 3, '{blue}');
"""
TARGET = """
SET search_path = kg;
CREATE TABLE makers (nr bigint PRIMARY KEY, name text);
CREATE TABLE tags (id uuid PRIMARY KEY, key text, word text);
CREATE TABLE parts (
    id uuid PRIMARY KEY, key text, maker_nr bigint NOT NULL REFERENCES makers, title text, reads integer DEFAULT 0
);
CREATE TABLE part_tags (
    part_id uuid REFERENCES parts, tag_id uuid REFERENCES tags, PRIMARY KEY (part_id, tag_id)
);
"""
ADA = Actor(who="ada", why="one engine less", run_id="run-1")


def tag(key: str) -> UUID:
    return uuid5(NAMESPACE, key)


@pytest_asyncio.fixture(loop_scope="session")
async def shop(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        await made_by(graph, write=SOURCE, target=TARGET)
        await migrate_bookkeeping(graph.target, "kg")
        await adopt(graph.write, "kg", SHOP)
        await fill(graph)
        yield graph


async def fill(graph: TestGraph) -> None:
    """What the other engine left: half of the rows, a stale one, extra ones. Readers have counted p1."""
    for query, rows in (
        ("INSERT INTO makers VALUES ($1, $2)", [(1, "Ada"), (2, "Old"), (9, "Gone")]),
        ("INSERT INTO tags VALUES ($1, $2, $3)", [(tag("red"), "red", "Red"), (tag("dim"), "dim", "Dim")]),
        (
            "INSERT INTO parts VALUES ($1, $2, $3, $4, 7)",
            [
                (key_uuid("p1"), "p1", 1, "bolt"),
                (key_uuid("p2"), "p2", 2, "nuts"),
                (key_uuid("p8"), "p8", 9, "x"),
            ],
        ),
        ("INSERT INTO part_tags VALUES ($1, $2)", [(key_uuid("p1"), tag("red"))]),
    ):
        for row in rows:
            await on_target(graph, query, *row)


async def taken(graph: TestGraph, *, schema_map: SchemaMap = SHOP, **given: object) -> Takeover:
    context = graph.context()
    return await take_over(
        schema_map,
        graph="kg",
        write=context.write,
        target=context.target,
        vectors=context.vectors,
        embedding=graph.embedding.name,
        keys=10,
        **given,  # type: ignore[arg-type]
    )


async def verified(graph: TestGraph) -> Verification:
    context = graph.context()
    return await verify(
        SHOP,
        write=context.write,
        target=context.target,
        vectors=context.vectors,
        embedding=graph.embedding.name,
    )


async def cycle(graph: TestGraph, schema_map: SchemaMap = SHOP) -> SyncResult:
    return await SyncEngine(schema_map).run_cycle(graph.context())


def told(found: Verification) -> dict[str, dict[str, set[tuple[str, ...]]]]:
    return {
        one.name: {
            verdict: set(getattr(one, verdict).keys)
            for verdict in ("missing", "stale", "extra", "pending")
            if getattr(one, verdict).count
        }
        for one in found.relations
        if one.kind is not RelationKind.VECTORS
    }


async def versions(graph: TestGraph) -> dict[object, tuple[object, ...]]:
    rows = await read(
        graph,
        "SELECT 'm' || nr, xmin::text, ctid::text FROM makers UNION ALL SELECT key, xmin::text, ctid::text FROM tags"
        " UNION ALL SELECT key, xmin::text, ctid::text FROM parts",
    )
    return {row[0]: row[1:] for row in rows}


async def test_a_dry_run_says_what_differs_and_writes_nothing(shop: TestGraph) -> None:
    tables = await read(shop, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'kg' ORDER BY 1")

    async def everything() -> list[object]:
        return [
            await read(shop, f'SELECT t::text, xmin::text FROM "{name}" t ORDER BY 1') for (name,) in tables
        ]

    before = await everything()
    found = await taken(shop)
    assert await everything() == before
    assert told(found.found) == {
        "makers": {"missing": {("3",)}, "stale": {("2",)}, "extra": {("9",)}},
        "tags": {"missing": {("blue",)}, "extra": {("dim",)}},
        "parts": {"missing": {("p3",), ("p4",)}, "stale": {("p2",)}, "extra": {("p8",)}},
        "part_tags": {"missing": {("p2", "red"), ("p2", "blue")}},
    }
    assert [one.equal for one in found.found.relations if one.kind is RelationKind.ROWS] == [1, 1, 1]
    assert (found.extra_rows, found.extra_links, found.strange, found.refusals) == (3, 0, (), ())
    assert not found.equal
    assert any("3 rows that the write-db does not have stays" in said for said in found.sentences())


async def test_only_what_differs_is_written_and_extras_stay_unless_asked(shop: TestGraph) -> None:
    before = await versions(shop)
    assert (await taken(shop, actor=ADA)).refusals == ()
    result = await cycle(shop)
    assert result.status is CycleStatus.DRAINED
    after = await versions(shop)
    assert {key for key in before if after.get(key) != before[key]} == {"m2", "p2"}
    assert await read(shop, "SELECT reads FROM parts WHERE key IN ('p1', 'p2')") == [(7,), (7,)]
    assert {key: found for key, found in told(await verified(shop)).items() if found} == {
        "makers": {"extra": {("9",)}},
        "tags": {"extra": {("dim",)}},
        "parts": {"extra": {("p8",)}},
    }
    with pytest.raises(TakeoverRefused, match="verify kg"):
        await taken(shop)


async def test_extras_leave_when_asked_and_all_is_equal(shop: TestGraph) -> None:
    found = await taken(shop, actor=ADA, delete_extra=True)
    assert found.asked == 3
    assert await read(
        shop, "SELECT who, action, why, table_name, rows FROM sync_audit ORDER BY table_name"
    ) == [("ada", "take over rows", "one engine less", name, 1) for name in ("makers", "parts", "tags")]
    # Another attempt of the run asks for nothing twice.
    assert (await taken(shop, actor=ADA, delete_extra=True)).asked == 3
    await cycle(shop)
    assert (await verified(shop)).equal
    assert await read(shop, "SELECT count(*) FROM parts") == [(4,)]


async def test_rows_under_other_ids_refuse_it_and_no_sync_doubles_them(shop: TestGraph) -> None:
    await on_target(
        shop,
        "INSERT INTO parts VALUES ($1, 'p3', 2, 'gear'), ($2, NULL, 2, 'lost')",
        UUID(int=3),
        UUID(int=4),
    )
    await on_target(shop, "INSERT INTO part_tags VALUES ($1, $2)", UUID(int=3), tag("red"))
    found = await taken(shop, actor=ADA, delete_extra=True)
    [strange] = found.strange
    assert (strange.table, strange.count, strange.unreadable) == ("parts", 2, 1)
    assert set(zip(strange.keys, strange.ids, strict=True)) == {
        (("p3",), str(UUID(int=3))),
        ((), str(UUID(int=4))),
    }
    assert "tables.parts.id" in strange.way_out
    assert found.refusals
    assert found.asked == 0
    # Without a takeover: the table fails, the others are synced.
    result = await cycle(shop)
    [failed] = [table for table in result.tables if table.error]
    assert failed.table == "parts"
    assert "takeover" in str(failed.error)
    assert await read(shop, "SELECT count(*) FROM parts WHERE key = 'p3'") == [(1,)]
    assert await read(shop, "SELECT count(*) FROM makers") == [(4,)]
    # The statements work as they stand: links first.
    statements = str(failed.error)[str(failed.error).index("DELETE") :]
    assert statements.index("part_tags") < statements.index('DELETE FROM "kg"."parts"')
    connection = await shop.connect_target()
    await connection.execute(statements)
    await connection.close()
    assert await read(shop, "SELECT count(*) FROM parts") == [(3,)]
    assert (await cycle(shop)).status is CycleStatus.DRAINED
    assert await read(shop, "SELECT count(*) FROM parts WHERE key = 'p3'") == [(1,)]


@pytest.mark.long("test_only_what_differs_is_written_and_extras_stay_unless_asked")
async def test_a_table_that_comes_into_the_map_later_is_looked_at_too(shop: TestGraph) -> None:
    less = replace(SHOP, tables=SHOP.tables[:1])
    await cycle(shop, less)
    await on_target(shop, "INSERT INTO tags VALUES ($1, 'blue', 'Blue')", UUID(int=5))
    result = await cycle(shop)
    assert [table.table for table in result.tables if table.error] == ["tags"]
    assert await read(shop, "SELECT count(*) FROM tags WHERE key = 'blue'") == [(1,)]


@pytest.mark.long("test_only_what_differs_is_written_and_extras_stay_unless_asked")
async def test_links_that_no_array_names_refuse_it_unless_extras_are_deleted(shop: TestGraph) -> None:
    await on_target(shop, "INSERT INTO part_tags VALUES ($1, $2)", key_uuid("p1"), tag("dim"))
    found = await taken(shop, actor=ADA)
    assert found.extra_links == 1
    assert "1 link" in " ".join(found.refusals)
    assert (await taken(shop, actor=ADA, delete_extra=True)).refusals == ()
    await cycle(shop)
    assert (await verified(shop)).equal


@pytest.mark.long(after=1)
@pytest.mark.parametrize("keep", [True, False])
async def test_vectors_that_are_there_are_kept_where_somebody_says_so(shop: TestGraph, keep: bool) -> None:
    context = shop.context()
    collection = context.vectors.collection("parts")
    await shop.vectors.ensure_collection(collection, dimensions=16)
    points = [PointPayload(key_uuid(key), {"of": "another engine"}) for key in ("p1", "p2", "p8")]
    await shop.vectors.upsert(collection, points, np.ones((3, 16), dtype=np.float32))
    found = await taken(shop, actor=ADA, delete_extra=True, keep=keep)
    assert found.kept_vectors == (3 if keep else 0)
    result = await cycle(shop)
    # p3 and p4 are new, and p2 has another text now.
    assert (result.vectors.embedded, result.vectors.upserted) == ((3, 4) if keep else (4, 4))
    assert (await verified(shop)).equal


@pytest.mark.long("test_only_what_differs_is_written_and_extras_stay_unless_asked")
async def test_points_of_equal_rows_are_written(shop: TestGraph) -> None:
    """A row that is equal is not written, so nothing queues its point."""
    await taken(shop, actor=ADA, delete_extra=True)
    result = await cycle(shop)
    assert result.vectors.upserted == 4
    assert (await verified(shop)).equal


async def test_what_refers_to_a_stranger_leaves_first_whoever_made_the_table(shop: TestGraph) -> None:
    """Without rows of readers that refer to it, no printed statement would work for foreign keys without action."""
    connection = await shop.connect_target()
    await connection.execute(
        "SET search_path = kg; ALTER TABLE tags ADD above uuid REFERENCES tags;"
        "CREATE TABLE reads (id int PRIMARY KEY, tag uuid REFERENCES tags ON DELETE CASCADE);"
        'CREATE TABLE "Read notes" (read int REFERENCES reads);'
        "CREATE TABLE seen (tag uuid REFERENCES tags ON DELETE SET NULL)"
    )
    strange = UUID(int=6)
    await connection.execute("INSERT INTO tags VALUES ($1, 'odd', 'Odd')", strange)
    await connection.execute("UPDATE tags SET above = $1 WHERE key = 'red'", strange)
    for table in ("reads VALUES (1, $1)", "seen VALUES ($1)", "part_tags VALUES ($2, $1)"):
        values = (strange, key_uuid("p2"))[: 1 + ("$2" in table)]
        await connection.execute(f"INSERT INTO {table}", *values)
    await connection.execute('INSERT INTO "Read notes" VALUES (1)')
    condition = strange_condition(SHOP, "tags", schema="kg")
    assert condition is not None
    leaving = await ways_to_leave(connection, "tags", condition, schema="kg")
    await connection.execute("SET search_path = pg_catalog")
    await connection.execute(str(leaving))
    await connection.close()
    assert await read(shop, "SELECT key, above FROM tags ORDER BY 1") == [("dim", None), ("red", None)]
    assert await read(shop, 'SELECT count(*) FROM "Read notes"') == [(0,)]
    assert await read(shop, "SELECT tag FROM seen") == [(None,)]


@pytest.mark.long("test_only_what_differs_is_written_and_extras_stay_unless_asked")
async def test_counts_and_points_are_made_again_whatever_the_id_is_called_and_is(shop: TestGraph) -> None:
    """Makers have numbers in column nr as ids; tags a uuid in column `tag`."""
    connection = await shop.connect_target()
    await connection.execute(
        "SET search_path = kg; ALTER TABLE tags RENAME id TO tag;"
        "CREATE TABLE maker_numbers (of bigint PRIMARY KEY REFERENCES makers ON DELETE CASCADE, parts bigint DEFAULT 0);"
        "INSERT INTO maker_numbers VALUES (1, 77), (9, 5)"
    )
    await connection.close()
    makers, tags, parts = SHOP.tables
    counted = Stats(
        table="maker_numbers", owner="of", columns=(Stat(column="parts", counted="parts", by=("maker_nr",)),)
    )
    named = Id(rule=IdRule.UUID5, namespace=str(NAMESPACE), column="tag")
    word = VectorProjection(collection="tags", text="t.word", payload={"key": "t.key"})
    more = replace(SHOP, tables=(replace(makers, stats=counted), replace(tags, id=named, vector=word), parts))
    result = await cycle(shop, more)
    assert result.status is CycleStatus.DRAINED
    assert await read(shop, "SELECT * FROM maker_numbers ORDER BY 1") == [(1, 2), (2, 1), (3, 1), (9, 1)]
    # Five parts with p8, three tags with the extra one.
    assert result.vectors.upserted == 8


@pytest.mark.long("test_only_what_differs_is_written_and_extras_stay_unless_asked")
async def test_rows_in_no_list_are_compared_as_the_first_sync_lists_them(shop: TestGraph) -> None:
    listed = replace(SHOP["parts"], id=Id(rule=IdRule.HASH, beside=True), vector=None)
    beside = replace(SHOP, tables=(*SHOP.tables[:2], listed))
    await on_target(shop, "ALTER TABLE parts ALTER key DROP NOT NULL")
    await on_target(shop, "INSERT INTO part_tags VALUES ($1, $2)", key_uuid("p1"), tag("dim"))
    found = await taken(shop, schema_map=beside, actor=ADA)
    assert told(found.found)["parts"] == {"missing": {("p3",), ("p4",)}, "stale": {("p2",)}}
    assert told(found.found)["part_tags"] == {
        "missing": {("p2", "red"), ("p2", "blue")},
        "extra": {("p1", "dim")},
    }
    # p8 is no source row: where others may have rows, it is theirs.
    assert (found.unlisted, found.unlisted_links) == ({"parts": 1}, {})
    [refusal] = found.refusals
    assert "removes 1 link that no array names" in refusal
    assert any("parts has 1 row of no source row" in said for said in found.sentences())
    assert await read(shop, "SELECT count(*) FROM sync_row") == [(0,)]
    ours = replace(listed, links=(replace(listed.links[0], owned=Ownership.OURS),))
    kept = replace(beside, tables=(*SHOP.tables[:2], ours))
    assert (await taken(shop, schema_map=kept, actor=ADA)).refusals == ()
    assert (await taken(shop, schema_map=beside, actor=ADA, delete_extra=True)).refusals == ()


@pytest.mark.long("test_only_what_differs_is_written_and_extras_stay_unless_asked")
async def test_a_row_that_another_table_map_writes_into_is_no_stranger(shop: TestGraph) -> None:
    """The rows are its owner's, listed or not."""
    listed = replace(SHOP["parts"], id=Id(rule=IdRule.HASH, beside=True), vector=None, links=())
    into = TableMap(
        name="scores", source="score_rows", key=("part",), into="parts", columns=(Column(name="score"),)
    )
    await made_by(
        shop,
        write="CREATE TABLE kg.score_rows (part text PRIMARY KEY, score text)",
        target="ALTER TABLE kg.parts ADD COLUMN score text",
    )
    scored = replace(SHOP, tables=(*SHOP.tables[:2], listed, into))
    await adopt(shop.write, "kg", scored)
    assert (await taken(shop, schema_map=scored)).strange == ()
