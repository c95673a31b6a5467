"""A map that changes: what differs is read again by the next cycle, and nothing else is."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from syncline.capture.install.install import adopt
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
from syncline.engine.fill import FillDrain
from syncline.maps.ids import Id, IdRule
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.verification import Relation
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by
from tests.kit.cycle_clock import CycleClock

MAKERS = TableMap(name="makers", source="maker_drafts", columns=(Column(name="name"),))
PARTS = TableMap(
    name="parts",
    source="part_drafts",
    columns=(Column(name="title"),),
    references=(Reference(column="maker", parent="makers", required=True, target="maker_id"),),
    vector=VectorProjection(collection="parts", text="t.title", payload={"key": "t.key"}),
)
SHOP = SchemaMap(name="shop", tables=(MAKERS, PARTS))

WRITE = """
CREATE TABLE maker_drafts (id text PRIMARY KEY, name text, land text);
CREATE TABLE part_drafts (
    id text PRIMARY KEY, maker text NOT NULL, title text, weight integer, state text DEFAULT 'on', tags text[]
);
CREATE TABLE tag_drafts (id text PRIMARY KEY, word text);
INSERT INTO maker_drafts VALUES ('m1', 'Ada', 'UK'), ('m2', 'Bo', 'SE');
INSERT INTO part_drafts (id, maker, title, weight, tags) VALUES
    ('p1', 'm1', 'bolt', 5, '{red}'), ('p2', 'm1', 'nut', 3, '{red,blue}'), ('p3', 'm2', 'gear', 8, '{}'),
    ('p4', 'nobody', 'cog', 1, '{}');
INSERT INTO tag_drafts VALUES ('red', 'Red'), ('blue', 'Blue');
"""
TARGET = """
CREATE TABLE makers (id uuid PRIMARY KEY, key text NOT NULL, name text, sync_version bigint, sync_run bigint);
CREATE TABLE parts (
    id uuid PRIMARY KEY, key text NOT NULL, maker_id uuid NOT NULL REFERENCES makers, title text,
    sync_version bigint, sync_run bigint
);
CREATE TABLE tags (id uuid PRIMARY KEY, key text NOT NULL, word text, sync_version bigint, sync_run bigint);
CREATE TABLE part_tags (
    part_id uuid REFERENCES parts, tag_id uuid REFERENCES tags, PRIMARY KEY (part_id, tag_id)
);
CREATE TABLE maker_numbers (
    maker_id uuid PRIMARY KEY REFERENCES makers ON DELETE CASCADE, parts bigint DEFAULT 0, weight bigint DEFAULT 0
);
"""
TAGS = TableMap(name="tags", source="tag_drafts", columns=(Column(name="word"),))


def with_parts(**changes: object) -> SchemaMap:
    return replace(SHOP, tables=(MAKERS, replace(PARTS, **changes)))  # type: ignore[arg-type]


@pytest_asyncio.fixture(loop_scope="session")
async def shop(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    """A graph that is synced by SHOP, with one part whose maker is missing."""
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=WRITE, target=TARGET)
        await adopt(graph.write, "kg", SchemaMap(name="all", tables=(*SHOP.tables, TAGS)))
        first = await SyncEngine(SHOP).run_cycle(graph.context())
        assert (first.rows, first.parked, first.vectors.embedded) == (5, 1, 3)
        assert first.map_changes == ()
        yield graph


async def cycle(graph: TestGraph, schema_map: SchemaMap) -> SyncResult:
    return await SyncEngine(schema_map).run_cycle(graph.context())


def captured(result: SyncResult) -> dict[str, int]:
    return {table.table: table.captured for table in result.tables if table.captured}


def reread(result: SyncResult) -> dict[str, str]:
    return {table.table: table.reread for table in result.tables if table.reread}


async def test_a_map_that_says_the_same_is_no_change(shop: TestGraph) -> None:
    """Another name, another object: nothing is read and nothing is written."""
    before = await read(shop, "SELECT fence FROM sync_state")
    result = await cycle(shop, SchemaMap(name="other", tables=(replace(MAKERS), replace(PARTS))))
    assert (captured(result), reread(result), result.map_changes) == ({}, {}, ())
    assert await read(shop, "SELECT fence FROM sync_state") == before


async def test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded(shop: TestGraph) -> None:
    await on_target(shop, "ALTER TABLE parts ADD COLUMN weight integer")
    changed = with_parts(columns=(*PARTS.columns, Column(name="weight", type="integer")))
    result = await cycle(shop, changed)
    assert captured(result) == {"parts": 4}
    assert reread(result) == {"parts": "the map changed: column weight added"}
    assert await read(shop, "SELECT key, weight FROM parts ORDER BY 1") == [("p1", 5), ("p2", 3), ("p3", 8)]
    assert (result.vectors.embedded, result.parked) == (0, 1)
    # The parked row has the new column too, although it was parked by the map before.
    await write(shop, "INSERT INTO maker_drafts VALUES ('nobody', 'No Body')")
    result = await cycle(shop, changed)
    assert captured(result) == {"makers": 1}
    assert await read(shop, "SELECT weight FROM parts WHERE key = 'p4'") == [(1,)]


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_an_expression_that_changed_is_evaluated_for_every_row(shop: TestGraph) -> None:
    result = await cycle(shop, with_parts(expressions={"title": "upper(s.title)"}))
    assert reread(result) == {"parts": "the map changed: expression of title added"}
    assert await read(shop, "SELECT title FROM parts ORDER BY 1") == [("BOLT",), ("GEAR",), ("NUT",)]
    assert result.vectors.embedded == 3
    result = await cycle(shop, SHOP)
    assert reread(result) == {"parts": "the map changed: expression of title left"}
    assert await read(shop, "SELECT title FROM parts ORDER BY 1") == [("bolt",), ("gear",), ("nut",)]


async def test_rows_that_no_longer_belong_leave(shop: TestGraph) -> None:
    result = await cycle(shop, with_parts(present="weight > 3"))
    assert reread(result) == {"parts": "the map changed: present changed"}
    assert await read(shop, "SELECT key FROM parts ORDER BY 1") == [("p1",), ("p3",)]
    assert (result.parked, await shop.vectors.count("kg_parts")) == (0, 2)


async def test_a_column_that_left_is_not_read_again_and_its_values_stay(shop: TestGraph) -> None:
    result = await cycle(shop, with_parts(columns=()))
    assert (captured(result), reread(result)) == ({}, {})
    assert result.map_changes == ("parts: column title left; nothing is read again.",)
    assert len(await read(shop, "SELECT title FROM parts WHERE title IS NOT NULL")) == 3
    result = await cycle(shop, SHOP)
    assert reread(result) == {"parts": "the map changed: column title added"}


async def test_a_table_that_is_added_is_read_and_its_links_are_made(shop: TestGraph) -> None:
    links = Links(table="part_tags", source="tags", owner="part_id", member="tag_id", parent="tags")
    changed = SchemaMap(name="shop", tables=(MAKERS, TAGS, replace(PARTS, links=(links,))))
    result = await cycle(shop, changed)
    assert captured(result) == {"tags": 2, "parts": 4}
    assert reread(result) == {"parts": "the map changed: links part_tags added"}
    assert result.map_changes == ("tags: added to the map; every row is read.",)
    assert await read(shop, "SELECT count(*) FROM part_tags") == [(3,)]
    assert result.vectors.embedded == 0


async def test_a_table_that_left_is_named_and_its_rows_stay(shop: TestGraph) -> None:
    alone = SchemaMap(name="shop", tables=(MAKERS,))
    await write(shop, "DELETE FROM part_drafts WHERE id = 'p2'")
    result = await cycle(shop, alone)
    assert result.map_changes == (
        "parts: left the map; it is no longer synced, and its rows stay as they are.",
    )
    assert (result.status, result.parked, result.idle) == (CycleStatus.DRAINED, 0, True)
    assert await read(shop, "SELECT key FROM parts ORDER BY 1") == [("p1",), ("p2",), ("p3",)]
    # It is said once, and nothing waits for the table.
    fence = await read(shop, "SELECT fence FROM sync_state")
    result = await cycle(shop, alone)
    assert (result.map_changes, await read(shop, "SELECT fence FROM sync_state")) == ((), fence)

    # It comes back: every row is read, and rows whose deletes were missed leave with their points.
    result = await cycle(shop, SHOP)
    assert captured(result)["parts"] == 3
    assert await read(shop, "SELECT key FROM parts ORDER BY 1") == [("p1",), ("p3",)]
    assert (await shop.vectors.count("kg_parts"), result.vectors.embedded, result.parked) == (2, 0, 1)


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_a_row_that_a_left_table_refers_to_cannot_be_deleted_and_is_a_dead_letter(
    shop: TestGraph,
) -> None:
    alone = SchemaMap(name="shop", tables=(MAKERS,))
    await cycle(shop, alone)
    await write(shop, "DELETE FROM maker_drafts")
    result = await cycle(shop, alone)
    assert (result.status, result.dead_letters) == (CycleStatus.DRAINED, 2)
    await on_target(shop, "DROP TABLE part_tags, parts; UPDATE sync_dead_letter SET next_retry_at = now()")
    result = await cycle(shop, alone)
    assert (result.dead_letters, await read(shop, "SELECT * FROM makers")) == (0, [])


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("vector", "embedded", "upserted"),
    [
        (replace(PARTS.vector, payload={"title": "t.title"}), 0, 3),  # type: ignore[type-var]
        (replace(PARTS.vector, text="t.title || ''"), 0, 3),  # type: ignore[type-var]
        (replace(PARTS.vector, text="CASE t.key WHEN 'p1' THEN 'screw' ELSE t.title END"), 1, 3),  # type: ignore[type-var]
        (replace(PARTS.vector, indexed=("key",)), 0, 1),  # type: ignore[type-var]
    ],
)
async def test_points_are_written_again_and_only_changed_texts_are_embedded(
    shop: TestGraph, vector: VectorProjection, embedded: int, upserted: int
) -> None:
    result = await cycle(shop, with_parts(vector=vector))
    assert (captured(result), result.vectors.embedded, result.vectors.upserted) == ({}, embedded, upserted)
    assert len(result.map_changes) == 1
    assert (await cycle(shop, with_parts(vector=vector))).vectors.upserted == 0


async def test_vectors_that_go_elsewhere_leave_the_old_collection_as_it_is(shop: TestGraph) -> None:
    vector = VectorProjection(collection="pieces", text="t.title", payload={})
    result = await cycle(shop, with_parts(vector=vector))
    [note] = result.map_changes
    assert note.startswith("parts: vectors go to pieces; every point is written again")
    assert note.endswith("what stands in parts stays.")
    assert (await shop.vectors.count("kg_parts"), await shop.vectors.count("kg_pieces")) == (3, 3)
    assert (result.idle, result.vectors.pending) == (False, 0)
    # Back again: the vectors are there, but not the points of rows that have left since.
    await write(shop, "DELETE FROM part_drafts WHERE id = 'p1'")
    result = await cycle(shop, SHOP)
    assert (await shop.vectors.count("kg_parts"), result.vectors.embedded) == (2, 0)


async def test_counts_are_made_again_for_rows_that_did_not_change(shop: TestGraph) -> None:
    numbers = Stats(table="maker_numbers", owner="maker_id", columns=(_counted("parts"),))
    counting = replace(MAKERS, stats=numbers)
    result = await cycle(shop, SchemaMap(name="shop", tables=(counting, PARTS)))
    assert captured(result) == {}
    assert result.map_changes == ("makers: counts go to maker_numbers; every count is made again.",)
    by_maker = "SELECT m.key, n.parts FROM maker_numbers n JOIN makers m ON m.id = n.maker_id ORDER BY 1"
    assert await read(shop, by_maker) == [("m1", 2), ("m2", 1)]
    more = replace(
        numbers, columns=(*numbers.columns, replace(_counted("weight"), value="sum(length(c.title))"))
    )
    result = await cycle(shop, SchemaMap(name="shop", tables=(replace(MAKERS, stats=more), PARTS)))
    assert result.map_changes == ("makers: count weight added; every count is made again.",)
    assert await read(shop, "SELECT weight FROM maker_numbers ORDER BY 1") == [(4,), (7,)]
    assert (
        await cycle(shop, SchemaMap(name="shop", tables=(replace(MAKERS, stats=more), PARTS)))
    ).map_changes == ()


def _counted(column: str) -> Stat:
    return Stat(column=column, counted="parts", by=("maker_id",))


async def test_a_table_whose_target_lacks_the_column_fails_alone_until_it_is_there(shop: TestGraph) -> None:
    changed = SchemaMap(
        name="shop",
        tables=(
            replace(MAKERS, expressions={"name": "upper(s.name)"}),
            replace(PARTS, columns=(*PARTS.columns, Column(name="weight", type="integer"))),
        ),
    )
    result = await cycle(shop, changed)
    [error] = [table.error for table in result.tables if table.error]
    assert error is not None
    assert "kg.parts.weight is missing" in error
    assert 'ALTER TABLE "kg"."parts" ADD COLUMN "weight" integer' in error
    assert reread(result) == {"makers": "the map changed: expression of name added"}
    assert await read(shop, "SELECT name FROM makers ORDER BY 1") == [("ADA",), ("BO",)]
    await on_target(shop, "ALTER TABLE parts ADD COLUMN weight integer")
    result = await cycle(shop, changed)
    assert (captured(result), reread(result)) == (
        {"parts": 4},
        {"parts": "the map changed: column weight added"},
    )
    assert await read(shop, "SELECT weight FROM parts ORDER BY key") == [(5,), (3,), (8,)]
    assert captured(await cycle(shop, changed)) == {}


async def test_a_map_that_was_applied_in_part_is_no_longer_the_one_before(shop: TestGraph) -> None:
    half = SchemaMap(
        name="shop",
        tables=(
            replace(MAKERS, expressions={"name": "upper(s.name)"}),
            replace(PARTS, columns=(*PARTS.columns, Column(name="weight", type="integer"))),
        ),
    )
    assert (await cycle(shop, half)).status is CycleStatus.FAILED
    result = await cycle(shop, SHOP)
    assert reread(result) == {"makers": "the map changed: expression of name left"}
    assert await read(shop, "SELECT name FROM makers ORDER BY 1") == [("Ada",), ("Bo",)]


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_another_key_replaces_the_rows(shop: TestGraph) -> None:
    await write(shop, "ALTER TABLE maker_drafts ALTER COLUMN name SET NOT NULL, ADD UNIQUE (name)")
    makers = SchemaMap(name="makers", tables=(replace(MAKERS, key=("name",), columns=()),))
    await write(shop, "UPDATE part_drafts SET maker = 'Ada'")
    await adopt(shop.write, "kg", makers)
    result = await cycle(shop, SchemaMap(name="shop", tables=(*makers.tables, PARTS)))
    assert result.status is CycleStatus.DRAINED
    assert await read(shop, "SELECT key FROM makers ORDER BY 1") == [("Ada",), ("Bo",)]
    assert await read(shop, "SELECT count(*) FROM parts") == [(4,)]


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_another_rule_for_ids_waits_until_rows_with_ids_of_before_are_gone(shop: TestGraph) -> None:
    """No cycle would find them: each row would stand there twice, and children would refer to the old one."""
    own = Id(rule=IdRule.UUID5, namespace="6ba7b811-9dad-11d1-80b4-00c04fd430c8")
    other = replace(SHOP, tables=(replace(MAKERS, id=own), PARTS))
    refused = await cycle(shop, other)
    [failed] = [table for table in refused.tables if table.error]
    assert failed.table == "makers"
    assert captured(refused) == {}
    assert await read(shop, "SELECT count(*) FROM kg.makers") == [(2,)]
    assert captured(await cycle(shop, SHOP)) == {}

    await cycle(shop, other)
    target = await shop.connect_target()
    await target.execute("DELETE FROM kg.parts")
    await target.execute(str(failed.error)[str(failed.error).index("DELETE") :])
    await target.close()
    result = await cycle(shop, other)
    assert captured(result) == {"makers": 2, "parts": 4}
    assert reread(result)["parts"] == "the map changed: ids of makers changed"
    made = "SELECT count(*) FROM kg.parts p JOIN kg.makers m ON m.id = p.maker_id"
    assert await read(shop, made) == [(3,)]


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_an_engine_in_place_of_a_missing_provider_changes_no_map(shop: TestGraph) -> None:
    other = SyncEngine(SchemaMap(name="other", tables=(TAGS,)))
    result = await other.run_cycle(shop.context(), replacing=True)
    assert (captured(result), result.map_changes) == ({"tags": 2}, ())
    result = await cycle(shop, SHOP)
    assert (captured(result), result.map_changes) == ({}, ())


async def test_a_change_is_read_on_where_an_interrupted_cycle_stopped(shop: TestGraph) -> None:
    changed = with_parts(expressions={"title": "upper(s.title)"})
    engine = SyncEngine(changed)
    result = await engine.run_cycle(shop.context(batch_rows=1, seconds=0.0))
    assert result.status is CycleStatus.BUDGET_SPENT
    result = await engine.run_cycle(shop.context())
    assert await read(shop, "SELECT title FROM parts ORDER BY 1") == [("BOLT",), ("GEAR",), ("NUT",)]


def no_time_for_fills(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[bool]]:
    """What stands in for `run_turn`: the cycle's time ends with it, and all is left."""
    clock = CycleClock(monkeypatch)

    async def run_turn(*_: object, **__: object) -> bool:
        clock.spend()
        return True

    return run_turn


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_nothing_waits_while_rows_are_read_again_for_a_column(
    shop: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New rows, of the same table and of others, come first, whatever is left to be read again."""
    await on_target(shop, "ALTER TABLE makers ADD COLUMN land text")
    changed = replace(SHOP, tables=(replace(MAKERS, columns=(*MAKERS.columns, Column(name="land"))), PARTS))
    engine = SyncEngine(changed)
    with monkeypatch.context() as stopped:
        stopped.setattr(FillDrain, "run_turn", no_time_for_fills(stopped))
        result = await engine.run_cycle(shop.context())
        assert (result.status, result.look_owed, result.owes) == (CycleStatus.BUDGET_SPENT, True, True)
        assert reread(result) == {"makers": "the map changed: column land added"}
        await write(
            shop,
            "INSERT INTO maker_drafts VALUES ('m3', 'Cy', 'FR'); UPDATE maker_drafts SET land = 'NO' WHERE id = 'm2';"
            "INSERT INTO part_drafts (id, maker, title) VALUES ('p5', 'm3', 'cam')",
        )
        result = await engine.run_cycle(shop.context())
        # The part whose maker is not in the write-db is the only one that waits.
        assert (result.parked, captured(result)) == (1, {"makers": 2, "parts": 1})
        assert await read(shop, "SELECT key, land FROM makers ORDER BY 1") == [
            ("m1", None),
            ("m2", "NO"),
            ("m3", "FR"),
        ]
    # Another process goes on where it is.
    result = await SyncEngine(changed).run_cycle(shop.context())
    assert (result.status, captured(result)) == (CycleStatus.DRAINED, {"makers": 1})
    assert await read(shop, "SELECT land FROM makers ORDER BY key") == [("UK",), ("NO",), ("FR",)]
    assert await read(shop, "SELECT table_name FROM sync_cursor WHERE table_name LIKE 'sync_fill%'") == []
    result = await engine.run_cycle(shop.context())
    assert (captured(result), result.idle) == ({}, True)


async def test_rows_of_a_column_that_is_being_filled_are_pending(
    shop: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    await on_target(shop, "ALTER TABLE makers ADD COLUMN land text")
    changed = replace(SHOP, tables=(replace(MAKERS, columns=(*MAKERS.columns, Column(name="land"))), PARTS))

    async def compared() -> Relation:
        context = shop.context()
        found = await verify(
            changed,
            write=context.write,
            target=context.target,
            vectors=None,
            embedding="none",
            tables=["makers"],
        )
        return found.relations[0]

    with monkeypatch.context() as stopped:
        stopped.setattr(FillDrain, "run_turn", no_time_for_fills(stopped))
        await SyncEngine(changed).run_cycle(shop.context())
        rows = await compared()
        assert (rows.filling, rows.stale.count, set(rows.pending.keys)) == (True, 0, {("m1",), ("m2",)})
    await SyncEngine(changed).run_cycle(shop.context())
    rows = await compared()
    assert (rows.filling, rows.equal, rows.pending.count) == (False, 2, 0)


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_a_row_that_is_refused_while_a_column_is_filled_stops_no_other(shop: TestGraph) -> None:
    await on_target(shop, "ALTER TABLE parts ADD COLUMN weight integer CHECK (weight < 8)")
    changed = with_parts(columns=(*PARTS.columns, Column(name="weight", type="integer")))
    result = await SyncEngine(changed).run_cycle(shop.context(batch_rows=2))
    assert (result.status, result.dead_letters, captured(result)) == (CycleStatus.DRAINED, 1, {"parts": 4})
    assert await read(shop, "SELECT weight FROM parts ORDER BY key") == [(5,), (3,), (None,)]


@pytest.mark.long("test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded")
async def test_each_pass_reads_some_rows_again_however_short_it_is(
    shop: TestGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncline.engine.cycle._FILL_SECONDS", 0.0)
    await on_target(shop, "ALTER TABLE parts ADD COLUMN weight integer")
    changed = with_parts(columns=(*PARTS.columns, Column(name="weight", type="integer")))
    with capture_logs() as logs:
        result = await SyncEngine(changed).run_cycle(shop.context(batch_rows=1))
    assert (result.status, captured(result)) == (CycleStatus.DRAINED, {"parts": 4})
    assert len([line for line in logs if line["event"] == "cycle repeated"]) >= 2
    assert await read(shop, "SELECT count(*) FROM parts WHERE weight IS NULL") == [(0,)]
