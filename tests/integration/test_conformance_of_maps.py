"""The conformance suite over an author's own map: tables and rows made from it, or tables of the author's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import SyncEngine
from syncline.maps.document import read_map
from syncline.messages.sync import SyncResult
from syncline.provider import ProviderServices, SyncContext, SyncProvider
from syncline.testing import exercise_provider
from syncline.testing.conformance import Nonconforming, Subject, try_item
from syncline.testing.conformance.items import ITEMS
from syncline.testing.conformance.mapped_ground import MappedGround

SHOP = read_map(
    """
version: 1
name: shop
tables:
  makers:
    source: maker
    types: {id: uuid}
    id: same
    columns: {name: text, made: timestamptz}
  tags:
    source: tag
    key: nr
    types: {nr: bigint}
    id: {rule: same, column: nr}
    columns: [word]
  goods:
    source: "Article"
    key: [code]
    present: state = 'on'
    columns: {title: text, price: numeric, since: date}
    references:
      maker: {parent: makers, target: maker_id}
      before: {parent: goods, required: false}
    types: {maker: uuid, tag_nrs: "bigint[]"}
    links:
      good_tags: {source: tag_nrs, owner: good_id, member: tag_nr, parent: tags}
    expressions: {title: upper(s.title)}
    vector: {collection: goods, text: t.title, payload: {code: t.key}}
    stats:
      table: good_stats
      owner: good_id
      columns: {tags: {counted: good_tags, by: good_id}}
  lines:
    source: line
    key: [article, place]
    references: {article: goods}
    types: {place: smallint}
    columns: {amount: integer}
""",
    source="shop.yaml",
)
SOURCES = """
CREATE TABLE maker (id uuid PRIMARY KEY, name text NOT NULL, made timestamptz);
CREATE TABLE tag (nr bigserial PRIMARY KEY, word text);
CREATE TABLE "Article" (
    code text PRIMARY KEY, title text, price numeric, since date, state text NOT NULL, maker uuid NOT NULL REFERENCES maker,
    before text, tag_nrs bigint[]
);
CREATE TABLE line (article text REFERENCES "Article", place smallint, amount int, PRIMARY KEY (article, place));
"""
VALUES = {"Article.state": "CASE WHEN i % 9 = 0 THEN 'off' ELSE 'on' END"}


class Shop(SyncProvider):
    """An author's provider, based on the engine."""

    id = "shop"
    version = "1.0"
    api_version = 1
    schema_map = SHOP

    def __init__(self) -> None:
        self.engine = SyncEngine(SHOP)

    async def initialize(self, services: ProviderServices) -> None: ...

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        return await self.engine.run_cycle(context)

    async def close(self) -> None: ...


class LosesLinks(Shop):
    """It is wrong about one table of its own."""

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await super().sync_cycle(context)
        async with context.target.store.driver() as connection:
            await connection.execute(
                "DELETE FROM kg.good_tags WHERE good_id = (SELECT min(good_id::text)::uuid FROM kg.good_tags)"
            )
        return result


NO_PACKAGE = dict.fromkeys(("entry-point", "temporal"), "it is no installed package")
OF_THE_MAP = ("contract", "comparison", "late-commits", "deletes", "parked-children", "poison-rows")
"""Items with statements that are made from the map, beyond its rows."""

test_it_conforms_on_tables_of_its_own = exercise_provider(
    Shop,
    schema_map=SHOP,
    sources=SOURCES,
    values=VALUES,
    without=dict.fromkeys(ITEMS.keys() - {*OF_THE_MAP}, "the suite over the built-in tables has it")
    | NO_PACKAGE,
)
test_it_conforms_on_tables_of_its_own_in_all = pytest.mark.proof(
    exercise_provider(
        Shop,
        schema_map=SHOP,
        sources=SOURCES,
        values=VALUES,
        without=dict.fromkeys(OF_THE_MAP, "it has been tried") | NO_PACKAGE,
    )
)

PLAIN = read_map(
    """
version: 1
name: plain
tables:
  b: {source: "b rows", columns: {t: text, f: double precision, j: jsonb, y: bytea}}
  c:
    source: c
    key: day
    types: {day: date, bs: jsonb}
    references: {b: {parent: b, required: false}}
    links: {c_b: {source: bs, owner: c, member: b, parent: b}}
""",
    source="plain.yaml",
)


@pytest.fixture
def told(
    postgres_server: EmbeddedPostgres, new_database: Callable[[str], str], tmp_path: Path
) -> Callable[[Subject, str], str | None]:
    def tried(subject: Subject, item: str) -> str | None:
        try:
            try_item(item, subject, postgres_server, new_database, tmp_path / item)
        except Nonconforming as refused:
            return str(refused)
        return None

    return tried


@pytest.mark.long("integration/test_conformance_of_maps.py::test_it_conforms_on_tables_of_its_own")
def test_a_provider_that_loses_a_link_of_its_own_tables_is_told(
    told: Callable[[Subject, str], str | None],
) -> None:
    subject = Subject(make=LosesLinks, options={}, ground=MappedGround(SHOP, SOURCES, None, VALUES))
    assert "Provider 'shop' 1.0, late-commits: expected the stores to say" not in str(
        told(subject, "late-commits")
    )
    said = told(subject, "deletes")
    assert said is not None
    assert "but good_tags: missing {'good_id': " in said
    assert said.endswith(f". {ITEMS['deletes'].advice}.")


@pytest.mark.long("integration/test_conformance_of_maps.py::test_it_conforms_on_tables_of_its_own")
def test_tables_of_both_sides_are_made_from_the_map(told: Callable[[Subject, str], str | None]) -> None:
    class Plain(Shop):
        schema_map = PLAIN

        def __init__(self) -> None:
            self.engine = SyncEngine(PLAIN)

    subject = Subject(make=Plain, options={}, ground=MappedGround(PLAIN, None, None, {}))
    assert [told(subject, item) for item in ("contract", "parked-children", "poison-rows")] == [None] * 3


NUMBERED = read_map(
    """
version: 1
name: numbered
tables:
  authors:
    source: author
    key: slug
    id: {rule: assigned, type: bigint}
    columns: [name]
    references: {mentor: {parent: authors, required: false}}
    stats: {table: author_stats, owner: author, columns: {books: {counted: books, by: author_id}}}
  books:
    source: book
    id: {rule: assigned, type: uuid, natural: [isbn], beside: true}
    columns: [isbn, title]
    references: {author: {parent: authors, target: author_id}}
    links: {book_authors: {source: others, owner: book, member: author, parent: authors}}
    vector: {collection: books, text: t.title, payload: {isbn: t.isbn}}
""",
    source="numbered.yaml",
)


class Numbered(Shop):
    """Its target assigns the ids."""

    schema_map = NUMBERED

    def __init__(self) -> None:
        self.engine = SyncEngine(NUMBERED)


class MixesNumbersUp(Numbered):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await super().sync_cycle(context)
        async with context.target.store.driver() as connection:
            await connection.execute(
                "UPDATE kg.books SET author_id = (SELECT max(id) FROM kg.authors) WHERE title = (SELECT min(title) FROM kg.books)"
            )
        return result


def test_ids_that_the_target_assigns_are_compared_by_the_keys_of_their_rows(
    told: Callable[[Subject, str], str | None],
) -> None:
    ground = MappedGround(NUMBERED, None, None, {})
    subject = Subject(make=Numbered, options={}, ground=ground)
    assert [told(subject, item) for item in ("late-commits", "deletes", "parked-children")] == [None] * 3
    said = told(Subject(make=MixesNumbersUp, options={}, ground=ground), "deletes")
    assert said is not None
    assert "books: missing {'id': " in said


def test_tables_without_a_map_are_refused() -> None:
    with pytest.raises(ValueError, match="go with schema_map"):
        exercise_provider(Shop, sources=SOURCES)


def test_a_target_that_two_tables_write_into_is_one() -> None:
    document = """
version: 1
name: shop
tables:
  goods: {source: article, columns: [title]}
  prices: {source: price, into: goods, columns: {price: integer}}
"""
    ground = MappedGround(read_map(document, source="shop.yaml"), None, None, {})
    assert ground.targets == ["goods"]
