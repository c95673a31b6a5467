"""Map documents: short forms, any order, JSON, and maps that are written and read again."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from syncline.engine import (
    KNOWLEDGE_GRAPH,
    Column,
    Links,
    Reference,
    SchemaMap,
    Stat,
    Stats,
    TableMap,
    VectorProjection,
)
from syncline.maps.document import read_map, write_map
from syncline.maps.json_schema import map_schema_text
from tests.unit.test_bad_maps import BAD

ROOT = Path(__file__).parents[2]
BUILT_IN = (ROOT / "syncline/engine/knowledge_graph.yaml").read_text(encoding="utf-8")

LIBRARY = SchemaMap(
    name="library",
    tables=(
        TableMap(name="authors", source="author_drafts", key=("slug",), columns=(Column(name="name"),)),
        TableMap(
            name="books",
            source="book_drafts",
            key=("isbn",),
            present="state = 'published'",
            columns=(Column(name="title"), Column(name="pages", type="integer")),
            references=(Reference(column="sequel_of", parent="books", required=False),),
            links=(
                Links(table="book_authors", source="slugs", owner="book_id", member="author_id", parent="authors"),
            ),
            vector=VectorProjection(collection="books", text="t.title", payload={"isbn": "t.key"}, indexed=("isbn",)),
            stats=Stats(table="n", owner="o", columns=(Stat(column="sequels", counted="books", by=("sequel_of",)),)),
            expressions={"on": "s.title\n|| 'on'"},
        ),
    ),
)  # fmt: skip

AS_MAPPINGS = """
version: 1
name: library
tables:
  books:
    source: book_drafts
    key: isbn
    present: state = 'published'
    columns:
      title:
      pages: integer
    references:
      sequel_of: {parent: books, required: false}
    links:
      book_authors: {source: slugs, owner: book_id, member: author_id, parent: authors}
    vector: {collection: books, text: t.title, payload: {isbn: t.key}, indexed: isbn}
    stats:
      table: n
      owner: o
      columns:
        sequels: {counted: books, by: sequel_of}
    expressions:
      on: |-
        s.title
        || 'on'
  authors: {source: author_drafts, key: slug, columns: [name]}
"""

AS_LISTS = """
version: 1
name: library
tables:
- name: authors
  source: author_drafts
  key: [slug]
  columns: [name]
- name: books
  source: book_drafts
  key: [isbn]
  present: state = 'published'
  columns:
  - title
  - name: pages
    type: integer
  references:
  - column: sequel_of
    parent: books
    required: false
  links:
  - table: book_authors
    source: slugs
    owner: book_id
    member: author_id
    parent: authors
  vector: {collection: books, text: t.title, payload: {isbn: t.key}, indexed: [isbn]}
  stats:
    table: n
    owner: o
    columns: [{column: sequels, counted: books, by: [sequel_of]}]
  expressions: {on: "s.title\\n|| 'on'"}
"""


def _quoted(text: str) -> str:
    """For a reader of YAML 1.1, to which `on` is a truth value."""
    return re.sub(r"\bon:", "'on':", text)


@pytest.mark.parametrize("text", [AS_MAPPINGS, AS_LISTS], ids=["mappings", "lists"])
def test_a_document_says_the_same_in_either_form(text: str) -> None:
    assert read_map(text, source="library") == LIBRARY


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_a_document_may_be_json(indent: int | str | None) -> None:
    text = json.dumps(yaml.safe_load(_quoted(AS_LISTS)), indent=indent)
    assert read_map(text, source="library") == LIBRARY


def test_words_of_yaml_are_names_here() -> None:
    text = "version: 1\nname: on\ntables: {no: {source: off, key: y, columns: {null: text, 12:30: date, 1: text}}}"
    assert read_map(text, source="x") == SchemaMap(
        name="on",
        tables=(
            TableMap(
                name="no",
                source="off",
                key=("y",),
                columns=(Column(name="null"), Column(name="12:30", type="date"), Column(name="1")),
            ),
        ),
    )


def test_aliases_and_merged_mappings_are_read() -> None:
    text = """
version: 1
name: m
tables:
  a: {source: a, columns: &times {made: timestamptz, changed: timestamptz}}
  b: {source: b, columns: *times}
  c: {source: c, columns: {title: text, made: date, <<: *times}}
"""
    [a, b, c] = read_map(text, source="m")
    assert a.columns == b.columns
    assert [(column.name, column.type) for column in c.columns] == [
        ("title", "text"), ("made", "date"), ("changed", "timestamptz"),
    ]  # fmt: skip


def test_children_may_stand_before_parents_and_the_order_is_kept_otherwise() -> None:
    text = "version: 1\nname: m\ntables: {z: {source: z}, c: {source: c, references: {p: p}}, a: {source: a}, p: {source: p}}"
    assert [table.name for table in read_map(text, source="m")] == ["z", "a", "p", "c"]


@pytest.mark.parametrize("schema_map", [KNOWLEDGE_GRAPH, LIBRARY], ids=["built-in", "library"])
def test_a_written_map_reads_back_equal(schema_map: SchemaMap) -> None:
    written = write_map(schema_map)
    assert read_map(written, source="written") == schema_map
    assert "&id" not in written


def test_a_written_map_is_short() -> None:
    written = write_map(LIBRARY).splitlines()
    assert written[:3] == ["version: 1", "name: library", "tables:"]
    assert {"      name: text", "      pages: integer", "    key: isbn"} <= set(written)
    assert "    expressions:" in written
    assert not [line for line in written if "true" in line or "null" in line]


WORDS = st.one_of(
    st.sampled_from(
        [
            "on",
            "no",
            "null",
            "~",
            "1",
            "0x1",
            "1e3",
            "12:30",
            "=",
            "<<",
            "a b",
            " a",
            "- a",
            "a: b",
            "#",
            "'",
            '"',
        ]
    )
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
).filter(lambda word: word.strip() and not word.startswith("sync_") and len(word.encode()) < 50)


@given(
    st.lists(WORDS, min_size=1, max_size=4, unique=True),
    st.lists(WORDS, min_size=3, max_size=6, unique=True),
    WORDS,
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_map_reads_back_equal(tables: list[str], columns: list[str], sql: str, required: bool) -> None:
    # Names of collections: what '@' and '.' make of them is refused elsewhere.
    collections = [
        name.replace("@", "a").replace(".", "b") + f" {place}" for place, name in enumerate(tables)
    ]
    made: list[TableMap] = []
    for number, name in enumerate(tables):
        made.append(
            TableMap(
                name=name,
                source=f"s {name}",
                key=("k " + columns[0],),
                columns=tuple(
                    Column(name=column, type=sql) for column in columns[1:] if column not in ("id", "key")
                ),
                references=(Reference(column="r " + name, parent=tables[0], required=required),)
                if number
                else (),
                present=sql,
                expressions={"e " + column: sql for column in columns},
                vector=VectorProjection(
                    collection=collections[number], text=sql, payload={columns[0]: sql}, indexed=(columns[0],)
                ),
            )
        )
    schema_map = SchemaMap(name=sql, tables=tuple(made))
    assert read_map(write_map(schema_map), source="x") == schema_map


# The published schema ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    text = (ROOT / "docs/map.schema.json").read_text(encoding="utf-8")
    Draft202012Validator.check_schema(json.loads(text))
    return Draft202012Validator(json.loads(text))


def _loaded(text: str) -> Any:
    return yaml.safe_load(_quoted(text))


def test_the_published_schema_is_the_one_of_the_model() -> None:
    assert (ROOT / "docs/map.schema.json").read_text(encoding="utf-8") == map_schema_text(), "run: make docs"


@pytest.mark.parametrize(
    "text",
    [BUILT_IN, AS_MAPPINGS, AS_LISTS, write_map(LIBRARY)],
    ids=["built-in", "mappings", "lists", "written"],
)
def test_good_documents_fit_the_schema(schema: Draft202012Validator, text: str) -> None:
    assert [error.message for error in schema.iter_errors(_loaded(text))] == []


@pytest.mark.parametrize(
    "case",
    [
        "a later version", "no name", "no source", "a table that is a text", "an unknown key of the map",
        "an unknown key of a table", "an unknown key of a column", "a number for a name", "a text for a list",
        "a number for a type", "a reference without a parent", "a requirement in words", "links without an owner",
        "a payload that is a list", "an empty name", "a table with another name",
    ],
)  # fmt: skip
def test_bad_documents_do_not_fit_the_schema(schema: Draft202012Validator, case: str) -> None:
    assert list(schema.iter_errors(_loaded(BAD[case][0])))


def test_every_key_is_described(schema: Draft202012Validator) -> None:
    definitions = {"": schema.schema, **schema.schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, each in definitions.items()
        for key, value in each.get("properties", {}).items()
        if not value.get("description")
    ]
    assert silent == []


def test_the_model_stays_a_dataclass() -> None:
    books = LIBRARY["books"]
    assert replace(books, present="true").present == "true"
    with pytest.raises(ValueError, match="Unexpected keyword"):
        replace(books, absent="true")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        books.present = "x"  # type: ignore[misc]


def test_a_map_of_tenants_reads_back_equal_with_its_rules_for_ids() -> None:
    schema_map = read_map((ROOT / "examples/multi-tenant/map.yaml").read_text(), source="map.yaml")
    assert {table.name: table.tenant_column for table in schema_map}["tasks"] == "tenant_id"
    assert schema_map["plans"].tenant_column is None
    assert read_map(write_map(schema_map), source="again") == schema_map
