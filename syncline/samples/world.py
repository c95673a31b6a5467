"""The world as a knowledge graph: what ISO lists of countries, languages, currencies and scripts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from syncline.samples.entities import (
    COUNTRIES,
    CURRENCIES,
    STANDARDS,
    Entity,
    Record,
    entities,
    pycountry_version,
)
from syncline.samples.sample import Row, SampleTable, sample_table


@dataclass(frozen=True, kw_only=True)
class Relation:
    """One edge and the fact that states it. Undirected where the statement is symmetric."""

    edge_id: str
    source_id: str
    target_id: str
    relationship_type: str
    fact_id: str
    statement: str
    directed: bool = True


class World:
    """The five ISO code lists that pycountry carries, in their order. Needs the extra `dev-stack`."""

    name = "world"

    def tables(self) -> list[SampleTable]:
        """Return the tables, or raise SampleInvalid if pycountry is not installed."""
        attribution = f"pycountry {pycountry_version()}"
        # Each table says something about all of them, and they take longer to make than to keep.
        every = list(entities())
        return [
            sample_table("write_raw_sources", _raw_sources()),
            sample_table("write_facts", _facts(every)),
            sample_table("write_fact_sources", _fact_sources(every, attribution)),
            sample_table("write_nodes", _nodes(every)),
            sample_table("write_edges", _edges(every)),
        ]


def _relations(every: Sequence[Entity]) -> Iterator[Relation]:
    """Yield what the lists say about two records: containment, and numeric codes used twice on purpose."""
    for entity in every:
        if entity.node_type != "subdivision":
            continue
        record = entity.record
        yield _part_of(entity, "code", "country", record["country_code"])
        if "parent_code" in record:
            yield _part_of(entity, "parent", "subdivision", record["parent_code"])
    countries = {record["numeric"]: record for record in COUNTRIES.records()}
    for currency in CURRENCIES.records():
        country = countries.get(currency["numeric"])
        # ISO 4217 takes a country's letters and number for the currency of its authority; both have to agree,
        # so that a number that is equal by chance joins nothing.
        if country and currency["alpha_3"].startswith(country["alpha_2"]):
            yield _shared_code(currency, country)


def _part_of(entity: Entity, fact: str, node_type: str, code: str) -> Relation:
    return Relation(
        edge_id=f"part_of:{entity.code}:{code}",
        source_id=entity.node_id,
        target_id=f"{node_type}:{code}",
        relationship_type="part_of",
        fact_id=entity.fact_id(fact),
        statement=entity.facts[fact],
    )


def _shared_code(currency: Record, country: Record) -> Relation:
    key = f"shares_numeric_code:{currency['alpha_3']}:{country['alpha_2']}"
    return Relation(
        edge_id=key,
        source_id=f"currency:{currency['alpha_3']}",
        target_id=f"country:{country['alpha_2']}",
        relationship_type="shares_numeric_code",
        directed=False,
        fact_id=f"fact:{key}",
        statement=(
            f"{currency['name']} ({currency['alpha_3']}) in ISO 4217 and {country['name']} "
            f"({country['alpha_2']}) in ISO 3166-1 share the numeric code {country['numeric']}."
        ),
    )


def _raw_sources() -> Iterator[Row]:
    version = pycountry_version()
    for standard in STANDARDS:
        yield (
            standard.source_id,
            standard.uri,
            f"{standard.name}: {standard.title}",
            "application/json",
            standard.sha256(),
            "pycountry",
            json.dumps({"version": version, "file": standard.file}),
            "fetched",
        )


def _facts(every: Sequence[Entity]) -> Iterator[Row]:
    for entity in every:
        for name, sentence in entity.facts.items():
            yield entity.fact_id(name), sentence, "statement", "ready"
    for relation in _relations(every):
        # Containment is stated by the subdivision's own facts.
        if not relation.directed:
            yield relation.fact_id, relation.statement, "statement", "ready"


def _fact_sources(every: Sequence[Entity], attribution: str) -> Iterator[Row]:
    for entity in every:
        snippet = _json(entity.record)
        for name in entity.facts:
            yield entity.fact_id(name), entity.standard.source_id, snippet, attribution
    for relation in _relations(every):
        if not relation.directed:
            for standard in (CURRENCIES, COUNTRIES):
                yield relation.fact_id, standard.source_id, None, attribution


def _nodes(every: Sequence[Entity]) -> Iterator[Row]:
    for entity in every:
        yield (
            entity.node_id,
            entity.record["name"],
            entity.node_type,
            entity.definition,
            entity.parent_id,
            [entity.fact_id(name) for name in entity.facts],
            _json(entity.record),
        )


def _edges(every: Sequence[Entity]) -> Iterator[Row]:
    for relation in _relations(every):
        yield (
            relation.edge_id,
            relation.source_id,
            relation.target_id,
            relation.relationship_type,
            relation.directed,
            relation.statement,
            [relation.fact_id],
            None,
        )


def _json(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False)
