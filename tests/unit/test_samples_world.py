"""The world sample against pycountry's own lists."""

import sys
from collections import Counter

import pycountry
import pytest

from syncline.errors import SampleInvalid
from syncline.samples import Row, World

Rows = list[dict[str, object]]
LISTS = {
    "country": pycountry.countries,
    "subdivision": pycountry.subdivisions,
    "language": pycountry.languages,
    "currency": pycountry.currencies,
    "script": pycountry.scripts,
}


@pytest.fixture(scope="module")
def world() -> dict[str, Rows]:
    return {
        table.table: [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        for table in World().tables()
    }


def ids(rows: Rows) -> set[object]:
    return {row["id"] for row in rows}


def node(world: dict[str, Rows], key: str) -> dict[str, object]:
    return next(row for row in world["write_nodes"] if row["id"] == key)


def fact_ids(rows: Rows) -> set[object]:
    named: set[object] = set()
    for row in rows:
        assert isinstance(row["fact_ids"], list)
        named.update(row["fact_ids"])
    return named


def test_every_record_of_every_list_is_a_node(world: dict[str, Rows]) -> None:
    counts = Counter(row["node_type"] for row in world["write_nodes"])
    assert counts == {name: len(records) for name, records in LISTS.items()}


def test_nodes_come_in_the_order_of_the_lists(world: dict[str, Rows]) -> None:
    codes = [country.alpha_2 for country in pycountry.countries]
    assert [row["id"] for row in world["write_nodes"]][: len(codes)] == [f"country:{code}" for code in codes]


@pytest.mark.parametrize("table", ["write_raw_sources", "write_facts", "write_nodes", "write_edges"])
def test_ids_are_unique(world: dict[str, Rows], table: str) -> None:
    assert len(ids(world[table])) == len(world[table])


def test_every_parent_exists(world: dict[str, Rows]) -> None:
    parents = {row["parent_id"] for row in world["write_nodes"]} - {None}
    assert parents
    assert parents <= ids(world["write_nodes"])


def test_some_subdivisions_come_before_their_parents(world: dict[str, Rows]) -> None:
    position = {row["id"]: number for number, row in enumerate(world["write_nodes"])}
    early = [
        row
        for row in world["write_nodes"]
        if row["parent_id"] and position[row["parent_id"]] > position[row["id"]]
    ]
    assert early


def test_a_subdivision_lies_in_its_parent_or_else_in_its_country(world: dict[str, Rows]) -> None:
    assert node(world, "subdivision:AZ-BAB")["parent_id"] == "subdivision:AZ-NX"
    assert node(world, "subdivision:GB-ENG")["parent_id"] == "country:GB"


def test_every_node_has_a_fact_and_a_definition(world: dict[str, Rows]) -> None:
    assert all(row["fact_ids"] and row["definition"] for row in world["write_nodes"])


def test_facts_are_exactly_those_that_nodes_and_edges_name(world: dict[str, Rows]) -> None:
    named = fact_ids(world["write_nodes"]) | fact_ids(world["write_edges"])
    assert named == ids(world["write_facts"])


def test_every_fact_is_ready_and_has_a_standard(world: dict[str, Rows]) -> None:
    assert {row["dedup_status"] for row in world["write_facts"]} == {"ready"}
    links = world["write_fact_sources"]
    assert {row["fact_id"] for row in links} == ids(world["write_facts"])
    assert {row["raw_source_id"] for row in links} == ids(world["write_raw_sources"])
    pairs = [(row["fact_id"], row["raw_source_id"]) for row in links]
    assert len(set(pairs)) == len(pairs)


def test_there_is_a_raw_source_per_standard(world: dict[str, Rows]) -> None:
    assert [row["id"] for row in world["write_raw_sources"]] == [
        "standard:iso-3166-1",
        "standard:iso-3166-2",
        "standard:iso-639-3",
        "standard:iso-4217",
        "standard:iso-15924",
    ]
    assert all(len(str(row["content_hash"])) == 64 for row in world["write_raw_sources"])


def test_every_edge_joins_two_nodes(world: dict[str, Rows]) -> None:
    ends = {row["source_node_id"] for row in world["write_edges"]}
    ends |= {row["target_node_id"] for row in world["write_edges"]}
    assert ends <= ids(world["write_nodes"])


def test_every_subdivision_is_part_of_its_country_and_of_its_parent(world: dict[str, Rows]) -> None:
    expected = {f"part_of:{each.code}:{each.country_code}" for each in pycountry.subdivisions}
    expected |= {
        f"part_of:{each.code}:{each.parent_code}" for each in pycountry.subdivisions if each.parent_code
    }
    part_of = [row for row in world["write_edges"] if row["relationship_type"] == "part_of"]
    assert ids(part_of) == expected
    assert all(row["directed"] for row in part_of)


def test_currencies_share_a_numeric_code_with_the_country_whose_letters_they_bear(
    world: dict[str, Rows],
) -> None:
    undirected = [row for row in world["write_edges"] if not row["directed"]]
    assert undirected
    for edge in undirected:
        country = pycountry.countries.get(alpha_2=str(edge["target_node_id"]).removeprefix("country:"))
        currency = pycountry.currencies.get(alpha_3=str(edge["source_node_id"]).removeprefix("currency:"))
        assert country is not None
        assert currency is not None
        assert country.numeric == currency.numeric
        assert currency.alpha_3[:2] == country.alpha_2
    assert "shares_numeric_code:JPY:JP" in ids(undirected)


def test_definitions_are_sentences(world: dict[str, Rows]) -> None:
    assert node(world, "country:FR")["definition"] == (
        "France is listed in ISO 3166-1 with the codes FR, FRA and 250 and the official name French Republic."
    )
    assert node(world, "language:fra")["definition"] == (
        "French (fra) is a living individual language in ISO 639-3."
    )
    assert all(str(row["definition"]).endswith(".") for row in world["write_nodes"])


def test_the_same_rows_come_each_time() -> None:
    def everything() -> list[list[Row]]:
        return [list(table.rows) for table in World().tables()]

    assert everything() == everything()


def test_without_pycountry_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycountry", None)
    with pytest.raises(SampleInvalid, match=r'pip install "syncline\[dev-stack\]"'):
        World().tables()
