"""Stubs and marked rows where several graphs have rows of one source: tenants, and a shadow beside its graph."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast
from uuid import UUID

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.engine import SchemaMap, SyncEngine
from syncline.maps.document import read_map
from syncline.maps.one_tenant import of_tenant
from syncline.messages.base import GraphRef
from syncline.migrations import migrate_bookkeeping
from syncline.provider import GraphSchema, GraphVectors, SyncContext
from syncline.shadow.comparison import compare_with_shadow
from syncline.testing.graphs import TestGraph, write
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by

TABLES: Final = """
  authors: {source: author, key: nr, types: {nr: integer}, columns: [name]}
  sources:
    source: source
    types: {id: uuid}
    id: same
    present: ready
    columns: {uri: text, content_hash: text}
    marked: {uri: "'gone'"}
    stats: {table: source_counts, owner: source_id, columns: {quotes: {counted: quotes, by: source_id}}}
    vector: {collection: sources, text: t.uri, payload: {hash: t.content_hash}}
  quotes:
    source: quote
    columns: [words]
    source_only: [uri]
    references:
      author: {parent: authors, target: author_id, stub: {name: "'?'"}}
      content_hash: {parent: sources, target: source_id, by: content_hash, stub: {uri: s.uri}}
    types: {author: integer}
    marked: {words: "'gone'"}
"""
TENANTS: Final = read_map(
    f"version: 1\nname: kept\ntenant: {{column: tenant}}\ntables:\n{TABLES}", source="kept.yaml"
)
PLAIN: Final = read_map(f"version: 1\nname: kept\ntables:\n{TABLES}", source="kept.yaml")
SOURCE: Final = """
CREATE TABLE author (tenant text, nr integer, name text, PRIMARY KEY (tenant, nr));
CREATE TABLE source (tenant text, id uuid PRIMARY KEY, uri text, content_hash text, ready bool NOT NULL DEFAULT true);
CREATE TABLE quote (tenant text, id text, words text, uri text, content_hash text, author integer, PRIMARY KEY (tenant, id));
"""
TARGET: Final = """
CREATE TABLE authors (id uuid PRIMARY KEY, key integer, name text, sync_version bigint, sync_run bigint);
CREATE TABLE sources (id uuid PRIMARY KEY, uri text, content_hash text, sync_version bigint, sync_run bigint);
CREATE TABLE source_counts (source_id uuid PRIMARY KEY REFERENCES sources ON DELETE CASCADE, quotes bigint NOT NULL DEFAULT 0);
CREATE TABLE quotes (
    id uuid PRIMARY KEY, key text, words text, author_id uuid NOT NULL REFERENCES authors, source_id uuid NOT NULL REFERENCES sources,
    sync_version bigint, sync_run bigint
);
"""
A, B, C = (f"0a000000-0000-4000-8000-00000000000{n}" for n in "abc")


class Graphs:
    """Two graphs over the same source tables, `one` and `two`, each in its schema."""

    def __init__(self, stores: TestGraph) -> None:
        self.stores = stores

    def context(self, name: str) -> SyncContext:
        given = self.stores.context()
        return replace(
            given,
            graph=GraphRef(id=UUID(int=len(name)), slug=name),
            target=GraphSchema(store=self.stores.target, schema=name),
            vectors=GraphVectors(store=self.stores.vectors, prefix=f"{name}_"),
        )

    async def target(self, name: str, sql: str) -> list[tuple[object, ...]]:
        connection = await self.stores.connect_target()
        try:
            await connection.execute(f"SET search_path = {name}, syncline")
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def found(self, name: str) -> list[tuple[object, ...]]:
        return await self.target(name, FOUND)


FOUND: Final = """
SELECT q.key, q.words, a.name, s.uri, n.quotes FROM quotes q JOIN authors a ON a.id = author_id JOIN sources s ON s.id = q.source_id
LEFT JOIN source_counts n ON n.source_id = s.id ORDER BY 1
"""
KEPT: Final = "SELECT table_name, stub, count(*) FROM sync_kept GROUP BY 1, 2 ORDER BY 1, 2"


@pytest_asyncio.fixture(loop_scope="session")
async def graphs(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[Graphs]:
    async with bare_graph(new_database, tmp_path) as stores:
        await made_by(
            stores,
            write=f"SET search_path = kg; {SOURCE}",
            target="".join(
                f"CREATE SCHEMA {name}; SET search_path = {name}; {TARGET}" for name in ("one", "two")
            ),
        )
        for name in ("one", "two"):
            await migrate_bookkeeping(stores.target, name)
        yield Graphs(stores)


async def one_graph_alone(graphs: Graphs) -> None:
    """Make keys unique in the tables, as they are without tenants."""
    await write(
        graphs.stores,
        "ALTER TABLE author DROP CONSTRAINT author_pkey, ADD PRIMARY KEY (nr);"
        "ALTER TABLE quote DROP CONSTRAINT quote_pkey, ADD PRIMARY KEY (id);"
        "ALTER TABLE author ALTER tenant DROP NOT NULL; ALTER TABLE quote ALTER tenant DROP NOT NULL",
    )


async def test_stubs_and_marks_of_a_tenant_are_its_own(graphs: Graphs) -> None:
    await adopt(graphs.stores.write, "kg", TENANTS)

    async def synced() -> None:
        for name in ("one", "two"):
            context = graphs.context(name)
            for _ in range(2):
                result = await SyncEngine(TENANTS).of_tenant(name).run_cycle(context)
                assert [table.error for table in result.tables if table.error] == []
            assert (result.status.value, result.parked, result.dead_letters) == ("drained", 0, 0)
            found = await verify(
                of_tenant(TENANTS, name), write=context.write, target=context.target, vectors=context.vectors,
                embedding=context.embedding.name,
            )  # fmt: skip
            assert [str(each) for each in found.relations if each.damaged or each.problem] == []

    # Tenant two has the rows that those of tenant one name: nobody else's rows stand for them.
    await write(
        graphs.stores,
        f"INSERT INTO quote VALUES ('one', 'q', 'w', 'u', 'h', 1), ('two', 'q', 'w2', 'u2', 'h', 1);"
        f"INSERT INTO author VALUES ('two', 1, 'Two'); INSERT INTO source VALUES ('two', '{A}', 'U2', 'h')",
    )
    await synced()
    assert await graphs.found("one") == [("q", "w", "?", "u", 1)]
    assert await graphs.found("two") == [("q", "w2", "Two", "U2", 1)]
    assert await graphs.target("one", KEPT) == [("authors", True, 1), ("sources", True, 1)]
    assert await graphs.target("two", KEPT) == []
    # They move from tenant to tenant: gone (marked, where rows are) in one graph, in place of the stubs in the other.
    await write(graphs.stores, "UPDATE author SET tenant = 'one'; UPDATE source SET tenant = 'one'")
    await synced()
    assert await graphs.found("one") == [("q", "w", "Two", "U2", 1)]
    assert await graphs.target("one", KEPT) == []
    assert await graphs.found("two") == [("q", "w2", "?", "gone", 1)]
    assert await graphs.target("two", KEPT) == [("authors", True, 1), ("sources", False, 1)]
    # And back, and what refers to them leaves: marked, but for the row whose required parent left with it.
    await write(
        graphs.stores, "UPDATE author SET tenant = 'two'; UPDATE source SET tenant = 'two'; DELETE FROM quote"
    )
    await synced()
    assert await graphs.target("one", KEPT) == [("sources", False, 1)]
    assert await graphs.target("two", KEPT) == [("quotes", False, 1)]
    await write(
        graphs.stores,
        "INSERT INTO quote VALUES ('one', 'q', 'again', 'u', 'h', 1), ('two', 'q', 'again', 'u', 'h', 1)",
    )
    await synced()
    assert (await graphs.found("one"))[0][:3] == ("q", "again", "?")
    assert await graphs.found("two") == [("q", "again", "Two", "U2", 1)]


async def test_a_shadow_has_stubs_of_its_own_and_marks_are_no_difference(graphs: Graphs) -> None:
    await one_graph_alone(graphs)
    await adopt(graphs.stores.write, "kg", PLAIN)

    async def synced(*names: str) -> None:
        for name in names:
            for _ in range(2):
                result = await SyncEngine(PLAIN).run_cycle(
                    replace(graphs.context(name), shadow=name == "two")
                )
                assert [table.error for table in result.tables if table.error] == []
            assert (result.status.value, result.parked, result.dead_letters) == ("drained", 0, 0)

    contexts = {False: graphs.context("one"), True: graphs.context("two")}
    services = SimpleNamespace(
        write_schema=lambda _: contexts[False].write,
        target_schema=lambda _, shadow=False: contexts[shadow].target,
        graph_vectors=lambda _, shadow=False: contexts[shadow].vectors,
    )

    async def differing() -> list[str]:
        found = await compare_with_shadow(
            cast(Services, services), cast(Graph, SimpleNamespace(slug="one")), PLAIN
        )
        return [str(each) for each in found.relations if each.damaged or each.problem]

    await write(
        graphs.stores,
        f"INSERT INTO quote VALUES ('', 'q', 'w', 'u', 'h', 1), ('', 'r', 'w', 'u', 'i', 2), ('', 'x', 'w', 'u', 'i', 1);"
        f"INSERT INTO author VALUES ('', 1, 'One'); INSERT INTO source VALUES ('', '{A}', 'U', 'h'), ('', '{B}', 'left', 'b')",
    )
    await synced("one")
    await write(graphs.stores, f"DELETE FROM source WHERE id = '{B}'; DELETE FROM quote WHERE id = 'x'")
    await synced("one", "two")
    assert await graphs.target("one", KEPT) == [
        ("authors", True, 1), ("quotes", False, 1), ("sources", False, 1), ("sources", True, 1)
    ]  # fmt: skip
    assert await graphs.target("two", KEPT) == [("authors", True, 1), ("sources", True, 1)]
    assert await differing() == []
    # Both take over their stubs.
    await write(
        graphs.stores,
        f"INSERT INTO source VALUES ('', '{C}', 'V', 'i'); INSERT INTO author VALUES ('', 2, 'Two')",
    )
    await synced("one", "two")
    assert await differing() == []


@pytest.mark.long(
    "test_stubs_and_marks_of_a_tenant_are_its_own",
    "integration/test_map_changes.py::test_a_column_that_is_added_is_read_for_every_row_and_no_text_is_embedded",
)
async def test_columns_come_and_go_under_stubs_and_marks(graphs: Graphs) -> None:
    await one_graph_alone(graphs)
    await adopt(graphs.stores.write, "kg", PLAIN)
    context = graphs.context("one")

    async def synced(by: SchemaMap, *, failing: tuple[str, ...] = ()) -> list[str]:
        for _ in range(2):
            result = await SyncEngine(by).run_cycle(context)
        errors = {table.table: table.error for table in result.tables if table.error}
        assert tuple(errors) == failing, errors
        if not errors:
            assert (result.status.value, result.parked, result.dead_letters) == ("drained", 0, 0)
            found = await verify(
                by, write=context.write, target=context.target, vectors=context.vectors,
                embedding=context.embedding.name,
            )  # fmt: skip
            assert [str(each) for each in found.relations if each.damaged or each.problem] == []
        return list(errors.values())

    def changed(*pairs: tuple[str, str]) -> SchemaMap:
        text = TABLES
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        return read_map(f"version: 1\nname: kept\ntables:\n{text}", source="kept.yaml")

    await write(
        graphs.stores,
        f"INSERT INTO quote VALUES ('', 'q', 'w', 'u', 'h', 1), ('', 'r', 'w', 'u', 'i', 2), ('', 'x', 'w', 'u', 'i', 1);"
        f"INSERT INTO author VALUES ('', 1, 'One'); INSERT INTO source VALUES ('', '{A}', 'U', 'h'), ('', '{B}', 'left', 'b')",
    )
    await synced(PLAIN)
    await write(graphs.stores, f"DELETE FROM source WHERE id = '{B}'; DELETE FROM quote WHERE id = 'x'")
    await synced(PLAIN)
    kept = await graphs.target("one", KEPT)
    assert len(kept) == 4
    # A column is added: it is filled in the background, and rows without a source row stay as they are.
    await write(graphs.stores, "ALTER TABLE source ADD COLUMN lang text NOT NULL DEFAULT 'en'")
    await graphs.target("one", "ALTER TABLE sources ADD COLUMN lang text")
    with_lang = changed(("content_hash: text}", "content_hash: text, lang: text}"))
    await synced(with_lang)
    assert await graphs.target("one", "SELECT uri, lang FROM sources ORDER BY 1") == [
        ("U", "en"), ("gone", None), ("u", None)
    ]  # fmt: skip
    assert await graphs.target("one", KEPT) == kept
    # What a stub is made of is renamed at the source: that table fails, and says so, until the map follows.
    await write(graphs.stores, "ALTER TABLE quote RENAME COLUMN uri TO link")
    [said] = await synced(PLAIN, failing=("quotes",))
    assert "kg.quote.uri was renamed to link" in said
    link = (("source_only: [uri]", "source_only: [link]"), ("s.uri", "s.link"))
    followed = changed(*link)
    await write(graphs.stores, "INSERT INTO quote VALUES ('', 's', 'w', 'u9', 'k', 3)")
    await synced(followed)
    assert ("s", "w", "?", "u9", 1) in await graphs.found("one")
    # What a mark sets is dropped from the target.
    await graphs.target("one", "ALTER TABLE quotes DROP COLUMN words")
    [said] = await synced(followed, failing=("quotes",))
    assert "words" in said
    await graphs.target("one", "ALTER TABLE quotes ADD COLUMN words text")
    await write(graphs.stores, "UPDATE quote SET words = words || '!'; DELETE FROM quote WHERE id = 's'")
    await synced(followed)
    assert await graphs.target("one", "SELECT key, words FROM quotes ORDER BY 1") == [
        ("q", "w!"), ("r", "w!"), ("s", "gone"), ("x", None)
    ]  # fmt: skip
    # The value by which stubs are found gets another name in the target.
    await graphs.target("one", "ALTER TABLE sources RENAME COLUMN content_hash TO hash")
    by_hash = changed(
        *link, ("content_hash: text}", "hash: {type: text, source: content_hash}}"), ("by: content_hash", "by: hash"),
        ("t.content_hash", "t.hash"),
    )  # fmt: skip
    await synced(by_hash)
    await write(
        graphs.stores,
        f"INSERT INTO source VALUES ('', '{C}', 'V', 'i'); INSERT INTO author VALUES ('', 2, 'Two')",
    )
    await synced(by_hash)
    assert ("r", "w!", "Two", "V", 1) in await graphs.found("one")
