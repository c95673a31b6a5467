"""A column that is added to a source of a stored map: asked about, taken, left alone, or taken by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from syncline.messages.sync import SyncResult
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from tests.kit.databases import execute, rows
from tests.kit.pages import replace_lines
from tests.kit.small_shop import SHOP, added, composition, opened

WRITE = """
CREATE SCHEMA shop; CREATE TABLE shop.articles (code text PRIMARY KEY, title text);
INSERT INTO shop.articles VALUES ('b1', 'bolt'), ('n1', 'nut');
"""


@pytest_asyncio.fixture(loop_scope="session")
async def shop(lab: SyncLab) -> AsyncIterator[SyncLab]:
    """A laboratory with the built-in provider, and a shop's tables in both stores."""
    async with opened(lab, write=WRITE) as shop:
        yield shop


@pytest.fixture
def at_home(shop: SyncLab, with_stores: Callable[[SyncLab], CommandLine], tmp_path: Path) -> CommandLine:
    """The command line of somebody who reaches the stores too, in a folder with shop.yaml."""
    (tmp_path / "shop.yaml").write_text(SHOP)
    return with_stores(shop)


async def synced(at_home: CommandLine, **options: str) -> None:
    await added(at_home, **options)
    said = await at_home("sync", "shop")
    assert said.status == 0, said.err


async def test_it_is_asked_about_then_taken_or_left_alone_by_one_command(
    shop: SyncLab, at_home: CommandLine
) -> None:
    await synced(at_home)
    add = "ALTER TABLE shop.articles ADD COLUMN price integer DEFAULT 7, ADD COLUMN draft text"
    await execute(shop.services.settings.write_dsn, add)
    ran: Any = await at_home.answer("sync", "shop")
    assert [column["column"] for column in ran["result"]["new_columns"]] == ["price", "draft"]
    said = await at_home("status", "shop")
    assert "shop.articles.price (integer) was added in the write-db and is not synced." in said.out
    assert "syncline map take shop goods.price" in said.out
    assert "syncline map ignore shop goods.price" in said.out
    doctor = await at_home("doctor")
    assert "2 columns were added to sources and are not synced" in doctor.out

    refused = await at_home("map", "take", "shop", "goods.nothing")
    assert refused.status == 2
    assert "Waiting by its last cycle, as TABLE.COLUMN: goods.price, goods.draft" in refused.err
    taken = await at_home("map", "take", "shop", "goods.price", "--reason", "sold for it")
    assert "map shop: version 2 stored, goods.price taken" in taken.out
    left = await at_home("map", "ignore", "shop", "goods.draft")
    assert "map shop: version 3 stored, goods.draft left alone" in left.out
    document = await at_home("map", "show", "shop")
    assert "  goods:  # what is sold" in document.out
    assert "    columns: {price: integer, title: text}" in document.out

    ran = await at_home.answer("sync", "shop")
    assert ran["result"]["new_columns"] == []
    assert ran["result"]["vectors"]["embedded"] == 0
    assert await rows(shop.services.settings.graph_dsn, "SELECT key, price FROM shop.goods ORDER BY 1") == [
        ("b1", 7),
        ("n1", 7),
    ]
    assert "2 columns were added" not in (await at_home("doctor")).out
    assert (await at_home("verify", "shop")).status == 0
    nothing = await at_home("map", "take", "shop")
    assert nothing.out == "map shop: no new column waits for a decision\n"


@pytest.mark.long("test_it_is_asked_about_then_taken_or_left_alone_by_one_command")
async def test_a_graph_that_evolves_takes_it_by_itself(shop: SyncLab, at_home: CommandLine) -> None:
    await synced(at_home, new_columns="evolve")
    await execute(
        shop.services.settings.write_dsn,
        "CREATE TYPE shop.mood AS ENUM ('good');"
        "ALTER TABLE shop.articles ADD COLUMN price numeric(6, 2) DEFAULT 7, ADD COLUMN mood shop.mood",
    )
    ran: Any = await at_home.answer("sync", "shop")
    [note] = ran["result"]["map_changes"]
    assert note == (
        "goods: shop.articles.price (numeric(6,2)) was added, so goods and map shop, version 2, have it too; "
        "the next run fills it."
    )
    [left] = ran["result"]["new_columns"]
    assert (left["column"], left["problem"]) == (
        "mood",
        "The graph-db has no type mood: create it there, or map the column as text by hand.",
    )
    ran = await at_home.answer("sync", "shop")
    assert ran["result"]["vectors"]["embedded"] == 0
    found = "SELECT DISTINCT price::text, format_type(a.atttypid, a.atttypmod), a.attnotnull FROM shop.goods, pg_attribute a"
    found += " WHERE a.attrelid = 'shop.goods'::regclass AND a.attname = 'price'"
    assert await rows(shop.services.settings.graph_dsn, found) == [("7.00", "numeric(6,2)", False)]
    history: Any = await at_home.answer("map history", "shop")
    assert history["maps"][0]["who"] == "syncline"
    assert "policy evolve of graph shop: shop.articles.price was added" in history["maps"][0]["why"]


@pytest.mark.long("test_it_is_asked_about_then_taken_or_left_alone_by_one_command")
async def test_a_map_of_several_graphs_does_not_evolve_for_one_of_them(
    shop: SyncLab, at_home: CommandLine
) -> None:
    await synced(at_home, new_columns="evolve")
    add = ("graph", "add", "mall", "--no-schedule", "--composition", composition(map="shop"))
    assert (await at_home(*add)).status == 0
    await execute(shop.services.settings.write_dsn, "ALTER TABLE shop.articles ADD COLUMN price integer")
    ran: Any = await at_home.answer("sync", "shop")
    [left] = ran["result"]["new_columns"]
    assert left["problem"].startswith("Map shop syncs mall too, and their write-dbs may lack it")
    assert "syncline map take shop goods.price" in left["fix"]
    assert ran["result"]["map_changes"] == []


@pytest.mark.long("test_it_is_asked_about_then_taken_or_left_alone_by_one_command")
async def test_graphs_of_one_source_evolve_together(
    shop: SyncLab, at_home: CommandLine, tmp_path: Path
) -> None:
    """Tenants: what one graph finds at the source is there for the others, whose targets get the column too."""
    (tmp_path / "shop.yaml").write_text(f"{SHOP}tenant: tenant\n")
    write, graph = shop.services.settings.write_dsn, shop.services.settings.graph_dsn
    tenant = "ALTER TABLE shop.articles ADD tenant text NOT NULL DEFAULT 'a'"
    await execute(write, f"{tenant}; INSERT INTO shop.articles VALUES ('m1', 'mug', 'b')")
    await execute(graph, "CREATE SCHEMA mall; CREATE TABLE mall.goods (LIKE shop.goods INCLUDING INDEXES)")
    options = {"map": "shop", "new_columns": "evolve"}
    await added(at_home, new_columns="evolve", tenant="a")
    add = ("graph", "add", "mall", "--no-schedule", "--write-schema", "shop", "--composition")
    said = await at_home(*add, composition(**options, tenant="b"))
    assert said.status == 0, said.err
    for slug in ("shop", "mall"):
        assert (await at_home("sync", slug)).status == 0

    await execute(write, "ALTER TABLE shop.articles ADD COLUMN price integer DEFAULT 7")
    ran: Any = await at_home.answer("sync", "shop")
    assert ran["result"]["new_columns"] == []
    [note] = ran["result"]["map_changes"]
    assert "goods and map shop, version 2, have it too" in note
    for slug, code in (("mall", "m1"), ("shop", "b1")):
        ran = await at_home.answer("sync", slug)
        assert ran["result"]["new_columns"] == []
        assert (code, 7) in await rows(graph, f"SELECT key, price FROM {slug}.goods")
        assert (await at_home("verify", slug)).status == 0

    # Where targets differ, nothing is stored; nor where another graph's policy is to ask.
    await execute(graph, "ALTER TABLE mall.goods ADD COLUMN weight text")
    await execute(write, "ALTER TABLE shop.articles ADD COLUMN weight integer")
    ran = await at_home.answer("sync", "shop")
    assert [column["problem"] for column in ran["result"]["new_columns"]] == [
        "mall.goods.weight is there, with type text."
    ]
    asks = composition(map="shop", tenant="b")
    assert (await at_home("graph", "set", "mall", "--composition", asks)).status == 0
    ran = await at_home.answer("sync", "shop")
    assert [column["problem"] for column in ran["result"]["new_columns"]] == [
        "Map shop syncs mall too, whose policy is `ask`: take it by hand once all have it."
    ]
    history: Any = await at_home.answer("map history", "shop")
    assert [each["version"] for each in history["maps"]] == [2, 1]


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"new_columns": "sometimes"}, "evolve"),
        ({"new_columns": "evolve"}, "only a stored map gets a next version"),
        ({"new_columns": "evolve", "map": "shop", "map_version": 1}, "leave `map_version` out"),
    ],
)
async def test_a_policy_that_cannot_be_is_refused(
    shop: SyncLab, at_home: CommandLine, options: dict[str, object], problem: str
) -> None:
    await at_home("map", "put", "shop.yaml")
    add = ("graph", "add", "shop", "--no-schedule", "--composition", composition(**options))
    refused = await at_home(*add)
    assert refused.status == 2
    assert problem in refused.err


TWO = """\
version: 1
name: shop
tables:
  goods:
    source: articles
    key: code
    columns: [title]
  words:
    source: word_drafts
    types: {id: bigint}
    columns: {at: timestamptz}
    references: {article: {parent: goods}}
"""
ROWS = 200_000
RATE = 500
"""Writes a second: half of them change or add articles, half of them add words that refer to a new article."""


@dataclass
class Writers:
    """Writers of both sources, and how late words are in the graph-db."""

    lab: SyncLab
    written: int = 0
    late: list[tuple[float, float]] = field(default_factory=list)
    """(when, how late the newest word was) by the clock of this process."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self) -> None:
        """Write 25 rows in each twentieth of a second, as long as that can be kept up."""
        connection = await asyncpg.connect(self.lab.services.settings.write_dsn.get_secret_value())
        begun, tick = time.monotonic(), 0
        while not self.stop.is_set():
            tick += 1
            first = tick * 12
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO shop.articles (code, title) SELECT 'new' || n, 'new' FROM generate_series($1::int, $1 + 5) n",
                    first,
                )
                await connection.execute(
                    "UPDATE shop.articles SET title = 'changed ' || $1::int"
                    " WHERE code = ANY (ARRAY(SELECT 'a' || (7 * ($1 + n) % $2) FROM generate_series(1, 7) n))",
                    first,
                    ROWS,
                )
                await connection.execute(
                    "INSERT INTO shop.word_drafts (id, article, at) SELECT n, 'new' || n, clock_timestamp()"
                    " FROM generate_series($1::int, $1 + 5) n"
                    " UNION ALL SELECT -n, 'a' || n, clock_timestamp() FROM generate_series($1, $1 + 5) n",
                    first,
                )
            self.written += 25
            await asyncio.sleep(max(0.0, begun + tick * 25 / RATE - time.monotonic()))
        await connection.close()

    async def watch(self) -> None:
        """Note ten times a second how old the newest word of the graph-db is, while words are written."""
        connection = await asyncpg.connect(self.lab.services.settings.graph_dsn.get_secret_value())
        newest = "SELECT extract(epoch FROM clock_timestamp() - max(at))::float8 FROM shop.words"
        while not self.stop.is_set():
            late = await connection.fetchval(newest)
            if late is not None:
                self.late.append((time.monotonic(), late))
            await asyncio.sleep(0.1)
        await connection.close()

    async def sync(self) -> list[SyncResult]:
        """Run the graph again and again, as a Schedule and its changes do."""
        graph = await self.lab.services.graphs.get("shop")
        results = []
        while not self.stop.is_set():
            results.append((await self.lab.run(graph)).result)
        return results

    def latest(self, since: float, until: float) -> float:
        """The oldest that the newest word was between two moments."""
        return max(late for at, late in self.late if since <= at <= until)


@pytest.mark.proof
@pytest.mark.timeout(600)
async def test_a_column_that_is_added_under_500_writes_a_second_is_filled_within_a_minute(
    shop: SyncLab, at_home: CommandLine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "shop.yaml").write_text(TWO)
    settings = shop.services.settings
    await execute(
        settings.write_dsn,
        "DELETE FROM shop.articles; CREATE TABLE shop.word_drafts (id bigint PRIMARY KEY, article text NOT NULL, at timestamptz);"
        f"INSERT INTO shop.articles SELECT 'a' || n, 'title' FROM generate_series(0, {ROWS - 1}) n",
    )
    await execute(
        settings.graph_dsn,
        "CREATE TABLE shop.words (id uuid PRIMARY KEY, key bigint NOT NULL, article uuid NOT NULL, at timestamptz,"
        " sync_version bigint, sync_run bigint)",
    )
    await synced(at_home, new_columns="evolve")
    writers = Writers(shop)
    tasks = [asyncio.create_task(each()) for each in (writers.write, writers.watch)]
    runs = asyncio.create_task(writers.sync())
    await asyncio.sleep(20)
    begun = time.monotonic()
    add = "ALTER TABLE shop.articles ADD COLUMN price integer DEFAULT 7"
    await execute(settings.write_dsn, f"SET lock_timeout = '10s'; {add}")
    altered = time.monotonic()
    taken = await _until(
        shop,
        "SELECT count(*) > 0 FROM pg_attribute WHERE attrelid = 'shop.goods'::regclass AND attname = 'price'",
    )
    filled = await _until(shop, "SELECT count(*) = 0 FROM shop.goods WHERE price IS NULL")
    before, during = writers.latest(begun - 15, begun), writers.latest(altered, filled)
    await asyncio.sleep(2)
    rate = writers.written / (time.monotonic() - begun + 20)
    writers.stop.set()
    await asyncio.gather(*tasks)
    results = await runs
    while not results[-1].idle:
        results.append((await shop.run(await shop.services.graphs.get("shop"))).result)
    counts = [(each.parked, each.dead_letters, each.failures) for each in results]
    troubles = tuple(map(max, zip(*counts, strict=True)))
    lines = [
        "| `ADD COLUMN … DEFAULT` over 200,000 rows, with `evolve` | |",
        "|---|--:|",
        f"| writes a second meanwhile | {rate:.0f} |",
        f"| the target has the column after | {taken - altered:.1f} s |",
        f"| every row has its value after | {filled - altered:.1f} s |",
        f"| rows of another table were late by, at most | {during:.1f} s, {before:.1f} s before |",
        f"| parked, rejected, failed | {', '.join(map(str, troubles))} |",
    ]
    assert filled - altered < 60, lines
    assert during < before + 3, lines
    assert troubles == (0, 0, 0), lines
    assert rate > 0.9 * RATE, lines
    assert (await at_home("verify", "shop")).status == 0
    if request.config.getoption("--record-proofs") is not None:
        page = Path(__file__).parents[2] / "docs" / "performance.md"
        replace_lines(page, "proof:columns", lines)


async def _until(lab: SyncLab, question: str) -> float:
    """Return when a question to the graph-db was answered by true first."""
    while True:
        try:
            [(answer,)] = await rows(lab.services.settings.graph_dsn, question)
        except asyncpg.UndefinedColumnError:
            answer = False
        if answer:
            return time.monotonic()
        await asyncio.sleep(0.2)
