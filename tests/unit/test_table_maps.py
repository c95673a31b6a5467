"""A table map says itself what cannot work, before a row is moved."""

from collections.abc import Callable
from dataclasses import replace

import pytest

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

PARENTS = TableMap(name="parents", source="parent_rows")
OTHERS = TableMap(name="others", source="other_rows")
ONE = Reference(column="one", parent="parents", required=True, target="one_id")
TWO = Reference(column="two", parent="parents", required=True, target="two_id")
ELSEWHERE = Reference(column="elsewhere", parent="others", required=True)
LATE = Reference(column="late", parent="parents", required=False)
NAMED = Reference(column="label", parent="parents", required=True, by="label", target="label_id")
ROWS = TableMap(name="rows", source="row_rows", references=(ONE, TWO, ELSEWHERE, LATE))
PAIRS = TableMap(name="pairs", source="pair_rows", key=("one", "two"), references=(ONE, TWO))
LABELLED = replace(PARENTS, columns=(Column(name="label"),))
COUNTED = Stat(column="counted", counted="rows", by=("one_id",))


def schema(*tables: TableMap, parents: TableMap = PARENTS) -> SchemaMap:
    return SchemaMap(name="checked", tables=(parents, OTHERS, *tables))


def expressed(**expressions: str) -> SchemaMap:
    return schema(replace(ROWS, expressions=expressions))


REFUSED: dict[str, Callable[[], object]] = {
    r"id comes from the key": lambda: expressed(id="gen_random_uuid()"),
    r"key comes from the key": lambda: expressed(key="upper(s.id)"),
    r"one_id comes from the key": lambda: schema(replace(PAIRS, expressions={"one_id": "s.ref_two"})),
    "sync_version": lambda: expressed(sync_version="0"),
    "sync_run": lambda: schema(replace(ROWS, references=(replace(ONE, target="sync_run"),))),
    "one_id refers to parents": lambda: expressed(one_id="NULL"),
    "one_id refers to parents; an": lambda: expressed(one_id="coalesce(s.ref_one, s.ref_elsewhere)"),
    "two_id refers to parents": lambda: expressed(two_id="coalesce(s.ref_late, s.ref_two)"),
    "label_id refers to parents": lambda: schema(
        replace(ROWS, references=(NAMED,), expressions={"label_id": "s.ref_label"}), parents=LABELLED
    ),
    "an optional reference can be neither": lambda: expressed(late="s.ref_one"),
    "parents cannot hold": lambda: schema(
        replace(
            ROWS,
            links=(Links(table="parents", source="m", owner="row_id", member="parent_id", parent="others"),),
        )
    ),
    "rows cannot hold": lambda: schema(ROWS, replace(OTHERS, name="more", stats=Stats(table="rows", owner="o", columns=()))),
    "would be two numbers": lambda: schema(
        ROWS, parents=replace(PARENTS, stats=Stats(table="n", owner="counted", columns=(COUNTED,)))
    ),
    r"sync_number": lambda: schema(
        ROWS,
        parents=replace(PARENTS, stats=Stats(table="n", owner="o", columns=(replace(COUNTED, column="sync_number"),))),
    ),
    r"sync_hash": lambda: schema(
        replace(ROWS, vector=VectorProjection(collection="c", text="t.key", payload={"sync_hash": "t.key"}))
    ),
    r"sync_tombstone begins with": lambda: schema(replace(ROWS, source="sync_tombstone")),
    r"sync_outbox begins with": lambda: schema(replace(ROWS, name="sync_outbox")),
    "a key has one column": lambda: schema(replace(ROWS, key=())),
    "a key has one column or": lambda: schema(replace(PAIRS, key=("one", "one"))),
}  # fmt: skip


@pytest.mark.parametrize("problem", REFUSED)
def test_a_map_that_cannot_work_is_refused(problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        REFUSED[problem]()


def test_an_expression_may_choose_among_references_to_one_parent() -> None:
    assert expressed(one_id="least(s.ref_one, s.ref_two)", two_id="greatest(s.ref_one, s.ref_two)")
    assert expressed(words="upper(s.id)", of_a_parent="s.ref_elsewhere")
    assert KNOWLEDGE_GRAPH["edges"].expressions


def test_a_map_names_each_table_that_it_fills_once() -> None:
    also = TableMap(
        name="also", source="also_rows", into="parents", key=("one",), columns=(Column(name="label"),)
    )
    assert schema(also).filled == ["parents", "others"]
    assert {"facts", "node_stats", "edge_facts"} <= set(KNOWLEDGE_GRAPH.filled)
