"""How two versions of a map differ, and what follows: what is read, written and counted again."""

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
from syncline.engine.map_changes import ChangeKind, TableChange, definitions_of, map_changes, map_hash
from syncline.maps.ids import Id, IdRule
from syncline.maps.table_map import Ownership

MAKERS = TableMap(name="makers", source="maker_drafts", columns=(Column(name="name"),))
VECTOR = VectorProjection(collection="parts", text="t.title", payload={"key": "t.key"})
PARTS = TableMap(
    name="parts",
    source="part_drafts",
    columns=(Column(name="title"), Column(name="weight", type="integer")),
    references=(Reference(column="maker", parent="makers", required=True),),
    links=(Links(table="part_makers", source="others", owner="part_id", member="maker_id", parent="makers"),),
    expressions={"title": "upper(s.title)"},
    vector=VECTOR,
)


def changed(**changes: object) -> TableChange:
    now = replace(PARTS, **changes)  # type: ignore[arg-type]
    [found] = map_changes(definitions_of(_map(PARTS)), definitions_of(_map(now)))
    return found


def _map(*tables: TableMap) -> SchemaMap:
    return SchemaMap(name="shop", tables=(MAKERS, *tables))


@pytest.mark.parametrize(
    ("changes", "what", "does"),
    [
        ({"columns": (*PARTS.columns, Column(name="size"))}, "column size added", {"fill"}),
        ({"columns": PARTS.columns[:1]}, "column weight left", set()),
        ({"ignored": ("size",)}, "ignored changed", set()),
        ({"columns": (PARTS.columns[0], Column(name="weight"))}, "column weight changed", {"reread"}),
        ({"source_only": (Column(name="size"),)}, "source column size added", set()),
        ({"expressions": {}}, "expression of title left", {"reread"}),
        ({"expressions": {"title": "s.title"}}, "expression of title changed", {"reread"}),
        (
            {"expressions": {**PARTS.expressions, "label": "'x'"}},
            "expression of label added",
            {"reread"},
        ),
        (
            {"links": (replace(PARTS.links[0], columns={"made": "now()"}),)},
            "links part_makers changed",
            set(),
        ),
        ({"links": (replace(PARTS.links[0], position="place"),)}, "links part_makers changed", {"reread"}),
        (
            {"links": (replace(PARTS.links[0], member="other"),)},
            "links part_makers changed",
            {"reread"},
        ),
        ({"references": ()}, "reference maker left", {"reread"}),
        (
            {"references": (replace(PARTS.references[0], target="maker_id"),)},
            "reference maker changed",
            {"reread"},
        ),
        ({"links": ()}, "links part_makers left", {"part_makers"}),
        ({"links": (replace(PARTS.links[0], source="makers"),)}, "links part_makers changed", {"reread"}),
        ({"present": "weight > 1"}, "present changed", {"reread"}),
        ({"source": "parts_of_all"}, "source changed", {"reread", "compare"}),
        ({"key": ("code",)}, "key changed", {"reread", "compare"}),
        ({"vector": None}, "vectors of parts left", {"parts"}),
        ({"vector": replace(VECTOR, collection="pieces")}, "vectors go to pieces", {"points", "parts"}),
        ({"vector": replace(VECTOR, text="t.key")}, "text of the vectors changed", {"points"}),
        ({"vector": replace(VECTOR, payload={})}, "payload of the vectors changed", {"points"}),
        ({"vector": replace(VECTOR, indexed=("key",))}, "indexed of the vectors changed", {"indexed"}),
        (
            {"stats": Stats(table="part_numbers", owner="part_id", columns=())},
            "counts go to part_numbers",
            {"recount"},
        ),
    ],
)
def test_map_changes_of_a_table(changes: dict[str, object], what: str, does: set[str]) -> None:
    change = changed(**changes)
    assert (change.kind, change.what) == (ChangeKind.CHANGED, (what,))
    effects = ("reread", "fill", "compare", "points", "indexed", "recount")
    named = {name for name in effects if getattr(change, name)}
    left = {*change.links_left, *([change.collection_left] if change.collection_left else [])}
    assert named | left == does
    assert change.sentence.startswith(f"parts: {what}; ")
    assert ("nothing is read again" in change.sentence) == (not named and not left)


def test_map_changes_of_counts() -> None:
    one = Stat(column="parts", counted="parts", by=("maker",))
    stats = Stats(table="numbers", owner="id", columns=(one,))

    def counts(*columns: Stat) -> TableChange:
        both = [
            definitions_of(SchemaMap(name="x", tables=(replace(MAKERS, stats=each), PARTS)))
            for each in (stats, replace(stats, columns=columns))
        ]
        [found] = map_changes(*both)
        return found

    added = counts(one, replace(one, column="more"))
    assert (added.what, added.recount) == (("count more added",), True)
    left = counts()
    assert (left.what, left.recount) == (("count parts left",), False)


def test_map_changes_of_tables_that_come_and_go() -> None:
    both, one = definitions_of(_map(PARTS)), definitions_of(_map())
    [added] = map_changes(one, both)
    assert (added.kind, added.reread, added.compare, added.points) == (ChangeKind.ADDED, False, False, True)
    [returned] = map_changes(one, both, gone=["parts"])
    assert (returned.kind, returned.reread, returned.compare) == (ChangeKind.ADDED, True, True)
    [left] = map_changes(both, one)
    assert (left.kind, left.collection_left) == (ChangeKind.LEFT, "parts")
    assert map_changes(both, both) == ()


def test_map_hash_is_of_what_a_map_says() -> None:
    assert map_hash(_map(PARTS)) == map_hash(
        SchemaMap(name="other", tables=(replace(MAKERS), replace(PARTS)))
    )
    assert map_hash(_map(PARTS)) != map_hash(_map(replace(PARTS, present="false")))
    # What has its default counts no more than if it were not there: a field that a release adds changes nothing.
    assert "stats" not in definitions_of(_map(PARTS))["parts"]
    assert len(map_hash(KNOWLEDGE_GRAPH)) == 32


def test_another_id_concerns_all_that_refers_to_it() -> None:
    """Rows that are deleted for their id may take with them what refers to them, and what refers to that."""
    boxes = TableMap(
        name="boxes",
        source="box_drafts",
        references=(Reference(column="part", parent="parts", required=False),),
    )
    own = Id(rule=IdRule.UUID5, namespace="6ba7b811-9dad-11d1-80b4-00c04fd430c8")
    before = SchemaMap(name="shop", tables=(MAKERS, PARTS, boxes))
    now = replace(before, tables=(replace(MAKERS, id=own), PARTS, boxes))
    makers, *others = map_changes(definitions_of(before), definitions_of(now))
    assert (makers.ids, makers.anew, makers.reread, makers.compare, makers.after) == (
        True,
        True,
        True,
        True,
        frozenset(),
    )
    told = [(change.table, change.what, change.reread, change.after) for change in others]
    assert told == [
        (name, ("ids of makers changed",), True, frozenset({"makers"})) for name in ("parts", "boxes")
    ]


def test_links_whose_owners_or_places_change_back() -> None:
    links = replace(PARTS.links[0], owned=Ownership.OURS, position="place")
    before = definitions_of(_map(replace(PARTS, links=(links,))))
    [ours] = map_changes(
        definitions_of(_map(replace(PARTS, links=(replace(links, owned=Ownership.ALL),)))), before
    )
    assert (ours.reread, ours.links_ours, ours.links_all) == (False, ("part_makers",), ())
    assert "links in part_makers count as the engine's" in ours.sentence
    [left] = map_changes(before, definitions_of(_map(replace(PARTS, links=(replace(links, position=None),)))))
    assert (left.reread, left.links_ours, left.links_all) == (False, (), ())
    [all_ours] = map_changes(before, definitions_of(_map(PARTS)))
    assert (all_ours.reread, all_ours.links_ours, all_ours.links_all) == (True, (), ("part_makers",))
    assert "links of others in part_makers leave" in all_ours.sentence
