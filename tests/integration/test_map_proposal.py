"""`syncline map propose`: somebody's tables become a map, target tables and synced rows, without Python."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from syncline.capture.install.catalog import read_catalog
from syncline.capture.install.install import adopt
from syncline.cli import app
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import SyncEngine
from syncline.errors import InputInvalid
from syncline.maps.document import read_map
from syncline.messages.sync import CycleStatus
from syncline.operator.map_catalog import read_map_tables, table_names
from syncline.operator.map_check import check_map
from syncline.operator.map_decisions import Side
from syncline.operator.proposing import create_targets, propose
from syncline.provider import GraphSchema
from syncline.testing.graphs import TestGraph

SHOP = """
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('glad', 'sad');
CREATE TABLE shop.app_category (slug text PRIMARY KEY, name varchar(40) NOT NULL, above text REFERENCES shop.app_category);
CREATE TABLE shop.app_tag (id text PRIMARY KEY, words text);
CREATE TABLE shop.app_article (
    id text PRIMARY KEY, category text NOT NULL REFERENCES shop.app_category, title text, "order" int,
    mood shop.mood, price numeric(10, 2), made timestamp, sold timestamptz, tag_ids text[], colours text[],
    author_id text, "key" text, sync_note text
);
CREATE TABLE shop.app_author (id text PRIMARY KEY, best text REFERENCES shop.app_article);
ALTER TABLE shop.app_article ADD FOREIGN KEY (author_id) REFERENCES shop.app_author;
CREATE TABLE shop.app_article_text (article_id text PRIMARY KEY REFERENCES shop.app_article, body text NOT NULL);
CREATE TABLE shop.app_pair (
    one text REFERENCES shop.app_article, other text REFERENCES shop.app_article, weight float, PRIMARY KEY (one, other)
);
CREATE TABLE shop.app_line (order_id text, line int, article_id text, PRIMARY KEY (order_id, line));
CREATE TABLE shop.app_visit (id bigserial PRIMARY KEY, article text);
CREATE TABLE shop.app_log (at timestamptz, said text);
CREATE TABLE shop.app_review (code text NOT NULL UNIQUE, article_id text, stars smallint);
CREATE VIEW shop.app_best AS SELECT * FROM shop.app_review;
"""

PROPOSED = """\
# Proposed from schema shop of the write-db.
# Read the comments, then: syncline map check FILE
version: 1
name: shop
# All sources begin with app_: targets are named without it.
tables:

  article:
    source: app_article
    references:
      category: category
    columns:
      title: text
      order: integer
      mood: text
      price: numeric
      made: timestamp
      sold: timestamptz
      colours: text[]  # an array that is copied; if it names rows, move it to `links`
      author_id: text  # refers to author, which refers back
      # key: text  # key of the target is what the engine makes of the key
    links:
      article_tag:
        source: tag_ids
        owner: article_id
        member: tag_id
        parent: tag
    # vector:  # to search it by meaning
    #   collection: article
    #   text: t.title
    #   payload: {title: t.title}

  article_text:
    source: app_article_text
    key: article_id
    references:
      article_id: article
    columns:
      body: text

  author:
    source: app_author
    references:
      best: {parent: article, required: false}

  category:
    source: app_category
    key: slug
    references:
      above: {parent: category, required: false}
    columns:
      name: text
    # vector:  # to search it by meaning
    #   collection: category
    #   text: t.name
    #   payload: {name: t.name}

  line:
    source: app_line
    key: [order_id, line]
    types:
      line: integer
    columns:
      article_id: text  # no foreign key; if it names a row of article, move it to `references`

  pair:
    source: app_pair
    key: [one, other]
    references:
      one: article
      other: article
    columns:
      weight: double precision

  review:
    # No primary key: code is unique and NOT NULL.
    source: app_review
    key: code
    columns:
      article_id: text  # no foreign key; if it names a row of article, move it to `references`
      stars: smallint

  tag:
    source: app_tag
    columns:
      words: text

  visit:
    source: app_visit
    id: same
    types:
      id: bigint
    columns:
      article: text  # no foreign key; if it names a row of article, move it to `references`

# Not proposed:
#   app_log: it has no primary key, and no unique columns that are NOT NULL.
"""


async def side(place: GraphSchema) -> Side:
    async with place.store.driver() as connection:
        tables = await read_map_tables(connection, place.schema, await table_names(connection, place.schema))
        return Side(catalog=await read_catalog(connection, place.schema), tables=tables)


async def run(place: GraphSchema, statements: str) -> None:
    async with place.store.driver() as connection:
        await connection.execute(statements)


@pytest.fixture
def shop(graph: TestGraph) -> tuple[GraphSchema, GraphSchema]:
    """Schema `shop` of both databases."""
    context = graph.context()
    return replace(context.write, schema="shop"), replace(context.target, schema="shop")


async def test_tables_become_a_map_targets_and_synced_rows(
    graph: TestGraph, shop: tuple[GraphSchema, GraphSchema]
) -> None:
    write, target = shop
    await run(write, SHOP)
    proposal = await propose(write, target, name="shop")
    assert proposal.document == PROPOSED
    await create_targets(target, proposal)
    schema_map = read_map(proposal.document, source="shop")
    await adopt(write.store, "shop", schema_map)
    found = await check_map(schema_map, write, target)
    assert [misfit.problem for misfit in found.misfits] == []
    await run(
        write,
        "INSERT INTO shop.app_category VALUES ('b', 'Books', NULL), ('n', 'Novels', 'b');"
        "INSERT INTO shop.app_tag VALUES ('t', 'new');"
        "INSERT INTO shop.app_article (id, category, title, mood, price, tag_ids) VALUES ('a', 'n', 'Emma', 'glad', 7.5, '{t}');"
        "INSERT INTO shop.app_article_text VALUES ('a', 'Once');"
        "INSERT INTO shop.app_author VALUES ('j', 'a');"
        "INSERT INTO shop.app_pair VALUES ('a', 'a', 1);"
        "INSERT INTO shop.app_review VALUES ('r', 'a', 5)",
    )
    result = await SyncEngine(schema_map).run_cycle(replace(graph.context(), write=write, target=target))
    assert result.status is CycleStatus.DRAINED, result
    async with target.store.driver() as connection:
        rows = await connection.fetch(
            "SELECT a.title, a.mood, a.price::text, c.name, t.words, x.body, u.key AS author, p.weight, r.stars"
            " FROM shop.article a JOIN shop.category c ON c.id = a.category JOIN shop.category b ON b.id = c.above"
            " JOIN shop.article_tag l ON l.article_id = a.id JOIN shop.tag t ON t.id = l.tag_id"
            " JOIN shop.article_text x ON x.article_id = a.id JOIN shop.author u ON u.best = a.id"
            " JOIN shop.pair p ON p.one = a.id, shop.review r"
        )
    assert [tuple(row) for row in rows] == [("Emma", "glad", "7.50", "Novels", "new", "Once", "j", 1.0, 5)]


async def test_what_a_graph_db_has_already_decides_names_and_columns(
    shop: tuple[GraphSchema, GraphSchema],
) -> None:
    write, target = shop
    await run(
        write,
        "CREATE SCHEMA shop; CREATE TABLE shop.tag (id text PRIMARY KEY);"
        "CREATE TABLE shop.article (id text PRIMARY KEY, title text, secret text, words text, tags text[])",
    )
    await run(
        target,
        "CREATE SCHEMA shop; CREATE TABLE shop.tags (id uuid PRIMARY KEY, key text, used_count int);"
        "CREATE TABLE shop.articles (id uuid PRIMARY KEY, key text, title text, words text GENERATED ALWAYS AS (upper(title)) STORED,"
        " reviewed boolean NOT NULL);"
        "CREATE TABLE shop.tagged (id bigserial PRIMARY KEY, what uuid REFERENCES shop.articles, by_tag uuid REFERENCES shop.tags,"
        " weight float NOT NULL, noted text, UNIQUE (what, by_tag));"
        "CREATE TABLE shop.notes (id int)",
    )
    document = (await propose(write, target, name="on")).document
    assert (
        document.partition("tables:\n")[2]
        == """
  articles:
    source: article
    stamped: false
    columns:
      title: text
      # secret: text  # the graph-db has no such column
      # words: text  # the graph-db generates it
    links:
      tagged:
        source: tags
        owner: what
        member: by_tag
        parent: tags
        columns:
          weight: '0'  # NOT NULL without a default: the value of a new link
        #   noted: "''"
    # reviewed of the graph-db is NOT NULL, and of no source column.
    # vector:  # to search it by meaning
    #   collection: articles
    #   text: t.title
    #   payload: {title: t.title}

  tags:
    source: tag
    stamped: false
    # used_count of the graph-db is of no source column. A counter? `stats` keeps counts, in the row too.

# In the graph-db, and of no source above:
#   notes
"""
    )
    assert [table.name for table in read_map(document, source="x")] == ["tags", "articles"]


async def test_columns_without_foreign_keys_that_are_named_like_tables_are_noted(
    shop: tuple[GraphSchema, GraphSchema],
) -> None:
    write, target = shop
    await run(
        write,
        "CREATE SCHEMA shop; CREATE TABLE shop.topic (slug text PRIMARY KEY);"
        "CREATE TABLE shop.person (id bigint PRIMARY KEY, topics text[]);"
        "CREATE TABLE shop.visit (person bigint, day date, topic text, PRIMARY KEY (person, day))",
    )
    document = (await propose(write, target, name="on")).document
    assert (
        "# Key column person has no foreign key; if it names a row of person, add it to `references`."
        in document
    )
    assert "topic: text  # no foreign key; if it names a row of topic, move it to `references`" in document
    assert [links.parent for links in read_map(document, source="x")["person"].links] == ["topic"]


async def test_tables_of_an_extension_are_not_proposed(shop: tuple[GraphSchema, GraphSchema]) -> None:
    write, target = shop
    await run(
        write,
        "CREATE SCHEMA shop; CREATE TABLE shop.tag (id text PRIMARY KEY); CREATE TABLE shop.theirs (id text PRIMARY KEY);"
        "ALTER EXTENSION plpgsql ADD TABLE shop.theirs",
    )
    assert "theirs" not in (await propose(write, target, name="on")).document


@pytest.mark.long("test_tables_become_a_map_targets_and_synced_rows")
async def test_keys_of_other_types_are_told_to_the_map_and_synced(
    graph: TestGraph, shop: tuple[GraphSchema, GraphSchema]
) -> None:
    write, target = shop
    await run(
        write,
        "CREATE SCHEMA shop; CREATE TABLE shop.customer (id serial PRIMARY KEY, mail varchar(80));"
        "CREATE TABLE shop.invoice (number bigint PRIMARY KEY, customer_id int NOT NULL REFERENCES shop.customer);"
        "CREATE TABLE shop.line (invoice bigint REFERENCES shop.invoice, place int, sum numeric, PRIMARY KEY (invoice, place))",
    )
    proposal = await propose(write, target, name="shop")
    assert yaml.safe_load(proposal.document)["tables"] == {
        "customer": {
            "source": "customer",
            "id": "same",
            "types": {"id": "integer"},
            "columns": {"mail": "text"},
        },
        "invoice": {
            "source": "invoice",
            "key": "number",
            "id": {"rule": "same", "column": "number"},
            "types": {"number": "bigint", "customer_id": "integer"},
            "references": {"customer_id": "customer"},
        },
        "line": {
            "source": "line",
            "key": ["invoice", "place"],
            "types": {"invoice": "bigint", "place": "integer"},
            "references": {"invoice": "invoice"},
            "columns": {"sum": "numeric"},
        },
    }
    await create_targets(target, proposal)
    schema_map = read_map(proposal.document, source="shop")
    await adopt(write.store, "shop", schema_map)
    assert [misfit.problem for misfit in (await check_map(schema_map, write, target)).misfits] == []
    await run(
        write,
        "INSERT INTO shop.customer (mail) VALUES ('a@x'); INSERT INTO shop.invoice VALUES (1000000000000, 1);"
        "INSERT INTO shop.line VALUES (1000000000000, 1, 2.50), (1000000000000, 2, 3)",
    )
    result = await SyncEngine(schema_map).run_cycle(replace(graph.context(), write=write, target=target))
    assert (result.status, result.rows) == (CycleStatus.DRAINED, 4), result
    await run(write, "DELETE FROM shop.line; DELETE FROM shop.invoice; UPDATE shop.customer SET id = 7")
    await SyncEngine(schema_map).run_cycle(replace(graph.context(), write=write, target=target))
    async with target.store.driver() as connection:
        query = "SELECT id, (SELECT count(*) FROM shop.line), (SELECT count(*) FROM shop.invoice) FROM shop.customer"
        assert [tuple(row) for row in await connection.fetch(query)] == [(7, 0, 0)]


async def test_odd_names_are_proposed_as_they_are(shop: tuple[GraphSchema, GraphSchema]) -> None:
    write, target = shop
    await run(
        write,
        'CREATE SCHEMA shop; CREATE TABLE shop."Odd: ""one" ("on" text PRIMARY KEY, "line\nbreak" text, "# no" text[], "a: b" int);'
        'CREATE TABLE shop."null" ("\t" text PRIMARY KEY, "Odd: ""one_id" text, "x\ty" text REFERENCES shop."Odd: ""one", "key" int);'
        'CREATE TABLE shop."\n- bad" (id int);',
    )
    [odd, null] = read_map((await propose(write, target, name="off")).document, source="x")
    assert (odd.name, odd.key, [column.name for column in odd.columns]) == (
        'Odd: "one', ("on",), ["line\nbreak", "# no", "a: b"],
    )  # fmt: skip
    assert (null.name, null.key, [column.name for column in null.columns]) == (
        "null",
        ("\t",),
        ['Odd: "one_id'],
    )
    assert [(reference.column, reference.parent) for reference in null.references] == [("x\ty", 'Odd: "one')]


async def test_a_schema_without_tables_that_can_be_synced_is_refused(
    shop: tuple[GraphSchema, GraphSchema],
) -> None:
    with pytest.raises(
        InputInvalid, match=r"No table of schema shop of the write-db can be synced\. There is none"
    ):
        await propose(*shop, name="shop")
    await run(shop[0], "CREATE SCHEMA shop; CREATE TABLE shop.log (said text)")
    with pytest.raises(InputInvalid, match=r"can be synced\. log: it has no primary key"):
        await propose(*shop, name="shop")


def test_the_command_prints_a_map_or_the_ddl_or_makes_the_tables(
    new_database: Callable[..., str],
    postgres_server: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith(("SYNCLINE_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCLINE_WRITE_DSN", write := new_database())
    monkeypatch.setenv("SYNCLINE_GRAPH_DSN", new_database())
    postgres_server.psql(
        "CREATE SCHEMA shop; CREATE TABLE shop.tag (name text PRIMARY KEY, words text)",
        write.partition("?")[0].rpartition("/")[2],
    )
    command = ["map", "propose", "--write-schema", "shop"]

    def ask(*more: str) -> str:
        result = CliRunner().invoke(app, [*command, *more])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    document = ask("--name", "tags")
    assert [table.source for table in read_map(document, source="x")] == ["tag"]
    assert ask("--create-target", "print").startswith('CREATE TABLE "shop"."tag" (\n    "id" uuid NOT NULL,')
    assert json.loads(ask("--json"))["statements"]
    assert ask("--create-target", "make").startswith("# Proposed")
    (tmp_path / "tags.yaml").write_text(document)
    checked = CliRunner().invoke(app, ["map", "check", "tags.yaml", "--write-schema", "shop"])
    assert checked.stdout.startswith(
        "tags.yaml:8: write-db: shop.tag is not captured, so changes would be missed: "
        "run `syncline graph adopt` to install capture.\nmap tags: 1 table, 1 misfit\n"
    )


def test_the_json_schema_is_printed() -> None:
    result = CliRunner().invoke(app, ["map", "schema"])
    assert json.loads(result.stdout)["$id"] == "urn:syncline:map:1"


@pytest.mark.long("test_tables_become_a_map_targets_and_synced_rows")
async def test_join_tables_are_proposed_by_their_pair(
    graph: TestGraph, shop: tuple[GraphSchema, GraphSchema]
) -> None:
    """A join table by its primary key, one with an id beside its unique pair, and one whose id is needed."""
    write, target = shop
    await run(
        write,
        "CREATE SCHEMA shop; CREATE TABLE shop.film (id uuid PRIMARY KEY, title text);"
        "CREATE TABLE shop.actor (id bigint PRIMARY KEY, name text);"
        "CREATE TABLE shop.film_actor (film_id uuid REFERENCES shop.film, actor_id bigint REFERENCES shop.actor,"
        " role text, PRIMARY KEY (film_id, actor_id));"
        "CREATE TABLE shop.rating (id bigserial PRIMARY KEY, film_id uuid NOT NULL REFERENCES shop.film,"
        " actor_id bigint NOT NULL REFERENCES shop.actor, stars int, UNIQUE (film_id, actor_id));"
        "CREATE TABLE shop.credit (id bigserial PRIMARY KEY, film_id uuid NOT NULL REFERENCES shop.film,"
        " actor_id bigint NOT NULL REFERENCES shop.actor, UNIQUE (film_id, actor_id));"
        "CREATE TABLE shop.comment (id bigint PRIMARY KEY, credit_id bigint REFERENCES shop.credit)",
    )
    proposal = await propose(write, target, name="shop")
    tables = yaml.safe_load(proposal.document)["tables"]
    references = {"film_id": "film", "actor_id": "actor"}
    types = {"film_id": "uuid", "actor_id": "bigint"}
    pair = {"key": ["film_id", "actor_id"], "types": types, "references": references}
    assert tables["film_actor"] == {"source": "film_actor", **pair, "columns": {"role": "text"}}
    assert tables["rating"] == {"source": "rating", **pair, "columns": {"stars": "integer"}}
    assert tables["credit"]["id"] == "same"
    await create_targets(target, proposal)
    schema_map = read_map(proposal.document, source="shop")
    await adopt(write.store, "shop", schema_map)
    assert [misfit.problem for misfit in (await check_map(schema_map, write, target)).misfits] == []
    film = "00000000-0000-4000-8000-00000000000a"
    await run(
        write,
        f"INSERT INTO shop.film VALUES ('{film}', 'Emma'); INSERT INTO shop.actor VALUES (7, 'Ann');"
        f"INSERT INTO shop.film_actor VALUES ('{film}', 7, 'Emma');"
        f"INSERT INTO shop.rating VALUES (1, '{film}', 7, 5)",
    )
    context = replace(graph.context(), write=write, target=target)
    result = await SyncEngine(schema_map).run_cycle(context)
    assert (result.status, result.rows) == (CycleStatus.DRAINED, 4), result
    await run(write, "UPDATE shop.rating SET id = 9, stars = 4; DELETE FROM shop.film_actor")
    await SyncEngine(schema_map).run_cycle(context)
    async with target.store.driver() as connection:
        query = (
            "SELECT film_id::text, actor_id, stars, (SELECT count(*) FROM shop.film_actor) FROM shop.rating"
        )
        assert [tuple(row) for row in await connection.fetch(query)] == [(film, 7, 4, 0)]
