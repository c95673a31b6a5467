"""Kinds of DDL on a synced graph: what the next cycles do about each, as the handbook's table says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from syncline.capture.install.install import adopt
from syncline.engine import Column, SchemaMap, SyncEngine, TableMap
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.testing.graphs import TestGraph, on_target, write
from tests.kit.bare_graph import bare_graph, made_by

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "schema-changes.md"


@dataclass(frozen=True)
class Ddl:
    """A kind of DDL on `articles` of the write-db, or on `goods` of the graph-db."""

    name: str
    statement: str
    on_target: bool = False
    parted: bool = False


KINDS = [
    Ddl("add", "ALTER TABLE articles ADD COLUMN price integer DEFAULT 7"),
    Ddl("rename", "ALTER TABLE articles RENAME COLUMN title TO heading"),
    Ddl("drop", "ALTER TABLE articles DROP COLUMN title"),
    Ddl("replace", "ALTER TABLE articles DROP COLUMN title, ADD COLUMN label text"),
    Ddl("widen", "ALTER TABLE articles ALTER COLUMN size TYPE bigint"),
    Ddl("lengthen", "ALTER TABLE articles ALTER COLUMN note TYPE varchar(40)"),
    Ddl("narrow", "ALTER TABLE articles ALTER COLUMN note TYPE varchar(5)"),
    Ddl("null", "ALTER TABLE articles ALTER COLUMN note SET NOT NULL"),
    Ddl("rewrite", "ALTER TABLE articles ALTER COLUMN title TYPE text USING upper(title)"),
    Ddl("key_type", "ALTER TABLE articles ALTER COLUMN code TYPE varchar(40)"),
    Ddl("key_name", "ALTER TABLE articles RENAME COLUMN code TO number"),
    Ddl("table_name", "ALTER TABLE articles RENAME TO wares"),
    Ddl("table_drop", "DROP TABLE articles"),
    Ddl(
        "attach",
        "CREATE TABLE more (LIKE articles INCLUDING ALL); INSERT INTO more VALUES ('z1', 'zip', 1, 'x'); "
        "ALTER TABLE articles ATTACH PARTITION more FOR VALUES FROM ('z') TO ('zz')",
        parted=True,
    ),
    Ddl("detach", "ALTER TABLE articles DETACH PARTITION articles_b", parted=True),
    Ddl("target_rename", "ALTER TABLE goods RENAME COLUMN title TO heading", on_target=True),
    Ddl("target_drop", "ALTER TABLE goods DROP COLUMN title", on_target=True),
    Ddl("target_type", "ALTER TABLE goods ALTER COLUMN size TYPE date USING NULL", on_target=True),
    Ddl("target_null", "ALTER TABLE goods ALTER COLUMN note SET NOT NULL", on_target=True),
    Ddl("target_owned", "ALTER TABLE goods ADD COLUMN visits integer DEFAULT 0", on_target=True),
    Ddl(
        "target_required",
        "ALTER TABLE goods ADD COLUMN owner text NOT NULL DEFAULT 'x'; "
        "ALTER TABLE goods ALTER COLUMN owner DROP DEFAULT",
        on_target=True,
    ),
    Ddl("target_unique", "CREATE UNIQUE INDEX ON goods (title)", on_target=True),
    Ddl("target_table", "ALTER TABLE goods RENAME TO wares", on_target=True),
]
COLUMNS = (Column(name="title"), Column(name="size", type="integer"), Column(name="note"))


def named(kind: Ddl, sql: str) -> str:
    """The statement of a kind on tables of its own."""
    for name in ("articles", "goods", "wares", "more"):
        sql = sql.replace(name, f"{name}_of_{kind.name}")
    return sql


def plain(kind: Ddl, text: str) -> str:
    return text.replace(f"_of_{kind.name}", "")


def tables() -> SchemaMap:
    maps = [
        TableMap(
            name=f"goods_of_{kind.name}",
            source=f"articles_of_{kind.name}",
            key=("code",),
            columns=COLUMNS,
        )
        for kind in KINDS
    ]
    other = TableMap(name="others", source="other", columns=(Column(name="title"),))
    return SchemaMap(name="shop", tables=(*maps, other))


def sources() -> str:
    columns = "(code text PRIMARY KEY, title text, size integer, note varchar(20))"
    parts = (
        " PARTITION BY RANGE (code); CREATE TABLE articles_a PARTITION OF articles FOR VALUES FROM ('a') TO ('b');"
        "CREATE TABLE articles_b PARTITION OF articles FOR VALUES FROM ('b') TO ('c')"
    )
    rows = "INSERT INTO articles VALUES ('a1', 'axe', 1, 'x'), ('b1', 'bolt', 2, 'y')"
    made = [
        named(kind, f"CREATE TABLE articles {columns}{parts if kind.parted else ''}; {rows};")
        for kind in KINDS
    ]
    return "".join(made) + "CREATE TABLE other (id text PRIMARY KEY, title text);"


def targets() -> str:
    columns = (
        "(id uuid PRIMARY KEY, key text NOT NULL, title text, size integer, note varchar(20),"
        " sync_version bigint, sync_run bigint)"
    )
    made = [named(kind, f"CREATE TABLE goods {columns};") for kind in KINDS]
    other = "(id uuid PRIMARY KEY, key text NOT NULL, title text, sync_version bigint, sync_run bigint)"
    return "".join(made) + f"CREATE TABLE others {other};"


async def run(graph: TestGraph, kind: Ddl, statement: str) -> str | None:
    """Run a statement on the tables of a kind; return why Postgres refuses it, None if it does not."""
    try:
        await (on_target if kind.on_target else write)(graph, named(kind, statement))
    except asyncpg.PostgresError as error:
        return plain(kind, str(error).splitlines()[0])
    return None


def outcome(kind: Ddl, refusal: str | None, results: list[SyncResult]) -> str:
    """What became of a kind's table, in the words of the runs."""
    if refusal is not None:
        return f"Postgres refuses it: {refusal}."
    found: list[str] = []
    for result in results:
        [table] = [each for each in result.tables if each.table == f"goods_of_{kind.name}"]
        if table.reread:
            found.append(f"Its rows are read again, since {table.reread}.")
        if table.compared:
            found.append(f"Rows that the write-db no longer has leave, since {table.compared}.")
    if table.error:
        return f"The table fails: {table.error}"
    found += [
        f"Asked: `{each.column}` ({each.type}) was added."
        for each in results[-1].new_columns
        if each.table == table.table
    ]
    rows = sum(each.rows for result in results for each in result.tables if each.table == table.table)
    if table.dead_letters:
        found.append("Rows that break the rule are rejected, each alone.")
    if not found and rows and not kind.on_target:
        found.append("The rows that came with it are read.")
    return " ".join(dict.fromkeys(found)) or "Nothing."


async def test_each_kind_of_ddl_has_the_outcome_that_the_handbook_says(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=sources(), target=targets())
        await adopt(graph.write, "kg", tables())
        engine = SyncEngine(tables())
        first = await engine.run_cycle(graph.context())
        assert (first.status, first.rows) == (CycleStatus.DRAINED, 2 * len(KINDS))

        refusals = {kind.name: await run(graph, kind, kind.statement) for kind in KINDS}
        await write(graph, "INSERT INTO other VALUES ('o1', 'other')")
        for kind in KINDS:
            if kind.on_target:
                row = "INSERT INTO articles VALUES ('a2', 'axe', 3, NULL); UPDATE articles SET size = 9 WHERE code = 'b1'"
                await write(graph, named(kind, row))
        results = [await engine.run_cycle(graph.context()) for _ in range(2)]
        assert results[0].rows > 0
        connection = await graph.connect_target()
        assert await connection.fetchval("SELECT title FROM others") == "other"
        await connection.close()

    lines = [
        f"| {'graph-db' if kind.on_target else 'write-db'} | `{kind.statement}` "
        f"| {plain(kind, outcome(kind, refusals[kind.name], results))} |"
        for kind in KINDS
    ]
    page = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- ddl -->\n", "<!-- /ddl -->"
    head = "| Where | DDL | What the next cycles do |\n|---|---|---|\n"
    said = page.partition(start)[2].partition(end)[0]
    wanted = head + "".join(f"{line}\n" for line in lines)
    if said != wanted:
        pytest.fail(f"between <!-- ddl --> and <!-- /ddl --> of {PAGE} should be\n{wanted}")


async def test_hint_of_what_was_dropped_blanks_nothing(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    """Each way that the message names is gone; the target's values are there after all of them."""

    def table(kind: str, *columns: Column) -> TableMap:
        return TableMap(name=f"goods_of_{kind}", source=f"articles_of_{kind}", key=("code",), columns=columns)

    kinds = [kind for kind in KINDS if kind.name in ("drop", "replace", "table_drop")]
    before = SchemaMap(name="shop", tables=tuple(table(kind.name, *COLUMNS) for kind in kinds))
    after = SchemaMap(name="shop", tables=(table("drop", *COLUMNS[1:]), table("replace", *COLUMNS)))
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        await made_by(graph, write=sources(), target=targets())
        await adopt(graph.write, "kg", before)
        await SyncEngine(before).run_cycle(graph.context())
        for kind in kinds:
            await run(graph, kind, kind.statement)
        result = await SyncEngine(before).run_cycle(graph.context())
        assert all(each.error and "stay" in each.error for each in result.tables)
        filled = (
            "BEGIN; ALTER TABLE articles_of_replace ADD COLUMN title text;"
            "UPDATE articles_of_replace SET title = CASE code WHEN 'a1' THEN 'axe' ELSE 'bolt' END; COMMIT"
        )
        await write(graph, filled)
        for _ in range(2):
            result = await SyncEngine(after).run_cycle(graph.context())
        assert [each.error for each in result.tables] == [None, None]
        connection = await graph.connect_target()
        for kind in kinds:
            rows = await connection.fetch(f"SELECT title FROM goods_of_{kind.name} ORDER BY key")
            assert [row["title"] for row in rows] == ["axe", "bolt"], kind.name
        await connection.close()
