"""WordNet as rows, from a handful of its lines."""

import json
from pathlib import Path

import pytest

from syncline.errors import SampleInvalid
from syncline.samples import Row, WordNet, open_sample

FILES = {
    "data.noun": (
        "  14 WordNet 3.1 Copyright 2011 by Princeton University.  All rights reserved.  \n"
        "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is perceived\n"
        "00001930 03 n 02 physical_entity 0 thing 1 003 @ 00001740 n 0000 + 00240638 v 0201 "
        '+ 00240638 v 0201 | an entity that has physical existence; "a stone"\n'
    ),
    "data.verb": "00240638 30 v 01 breathe 3 001 @ 00239751 v 0000 01 + 01 00 | reach full flavor\n",
    "data.adj": "00013616 00 s 01 real 0 001 & 00013114 s 0000 | capable of being treated as fact\n",
    "data.adv": "00001740 02 r 01 a_cappella 0 001 \\ 00013616 a 0101 | without accompaniment\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def rows(folder: Path, table: str) -> list[dict[str, object]]:
    found = next(each for each in WordNet(folder).tables() if each.table == table)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_a_synset_is_a_node_below_its_first_hypernym(folder: Path) -> None:
    node = rows(folder, "write_nodes")[1]
    assert json.loads(str(node.pop("metadata"))) == {
        "words": ["physical entity", "thing"],
        "lex_file": "noun.Tops",
    }
    assert node == {
        "id": "synset:n:00001930",
        "concept": "physical entity",
        "node_type": "noun",
        "definition": "an entity that has physical existence",
        "parent_id": "synset:n:00001740",
        "fact_ids": ["gloss:n:00001930"],
    }


def test_node_types_are_parts_of_speech_and_satellites_are_adjectives(folder: Path) -> None:
    nodes = rows(folder, "write_nodes")
    assert [node["node_type"] for node in nodes] == ["noun", "noun", "verb", "adjective", "adverb"]
    assert nodes[3]["id"] == "synset:a:00013616"
    assert json.loads(str(nodes[3]["metadata"]))["satellite"] is True
    assert json.loads(str(nodes[2]["metadata"]))["frames"] == [1]


def test_a_gloss_is_a_ready_fact_of_its_data_file(folder: Path) -> None:
    assert rows(folder, "write_facts")[1] == {
        "id": "gloss:n:00001930",
        "content": 'an entity that has physical existence; "a stone"',
        "fact_type": "definition",
        "dedup_status": "ready",
    }
    assert [(link["fact_id"], link["raw_source_id"]) for link in rows(folder, "write_fact_sources")] == [
        ("gloss:n:00001740", "wordnet:data.noun"),
        ("gloss:n:00001930", "wordnet:data.noun"),
        ("gloss:v:00240638", "wordnet:data.verb"),
        ("gloss:a:00013616", "wordnet:data.adj"),
        ("gloss:r:00001740", "wordnet:data.adv"),
    ]


def test_a_pointer_is_an_edge_and_a_repeated_one_is_the_same_edge(folder: Path) -> None:
    edges = rows(folder, "write_edges")
    assert [(edge["id"], edge["relationship_type"]) for edge in edges] == [
        ("n:00001740:~:n:00001930:0000", "hyponym"),
        ("n:00001930:@:n:00001740:0000", "hypernym"),
        ("n:00001930:+:v:00240638:0201", "derivationally_related_form"),
        ("v:00240638:@:v:00239751:0000", "hypernym"),
        ("a:00013616:&:a:00013114:0000", "similar_to"),
        ("r:00001740:\\:a:00013616:0101", "derived_from_adjective"),
    ]
    assert edges[2]["source_node_id"] == "synset:n:00001930"
    assert edges[2]["target_node_id"] == "synset:v:00240638"
    assert edges[2]["fact_ids"] == ["gloss:n:00001930"]
    assert json.loads(str(edges[2]["metadata"])) == {"symbol": "+", "word": "thing", "target_word": 1}


def test_a_raw_source_carries_version_and_license(folder: Path) -> None:
    sources = rows(folder, "write_raw_sources")
    assert [source["id"] for source in sources] == [f"wordnet:{name}" for name in FILES]
    assert sources[0]["title"] == "WordNet 3.1, data.noun"
    metadata = json.loads(str(sources[0]["provider_metadata"]))
    assert metadata["version"] == "3.1"
    assert "Princeton University" in metadata["license"]


def test_the_same_rows_come_each_time(folder: Path) -> None:
    def everything() -> list[list[Row]]:
        return [list(table.rows) for table in WordNet(folder).tables()]

    assert everything() == everything()


def test_a_missing_file_is_named_with_the_way_to_get_it(folder: Path) -> None:
    (folder / "data.adv").unlink()
    with pytest.raises(SampleInvalid, match=r"data\.adv is missing\. `make wordnet`"):
        WordNet(folder).tables()


def test_samples_are_opened_by_name(folder: Path) -> None:
    assert open_sample("wordnet", dict_dir=folder).name == "wordnet"
    assert open_sample("world").name == "world"


def test_wordnet_without_a_folder_is_refused() -> None:
    with pytest.raises(SampleInvalid, match="make wordnet"):
        open_sample("wordnet")


def test_an_unknown_sample_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(SampleInvalid, match="no sample 'moon' \\(known: wordnet, world\\)"):
        open_sample("moon")
