"""Join tables of the write-db as sources of links: keys and ids of every kind, parked on either side, deleted."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from syncline.capture.install.install import adopt
from syncline.engine import Column, Reference, SchemaMap, Stat, Stats, SyncEngine, TableMap
from syncline.maps.ids import Id, IdRule
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.migrations import migrate_bookkeeping
from syncline.operator.explain import explain
from syncline.operator.explanation import RowState
from syncline.testing.graphs import TestGraph, write
from syncline.testing.one_graph import on_target, read
from syncline.verify import verify
from tests.kit.bare_graph import bare_graph, made_by
from tests.kit.cases import further

NAMESPACE = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"


@dataclass(frozen=True)
class End:
    """The parents at one end: type of their key, and rule of their id."""

    key: str
    value: str
    form: str
    id: Id | None
    id_type: str

    def of(self, n: int) -> str:
        return self.value.format(n)


ENDS = {
    "text by hash": End("text", "'k{}'", "k{}", None, "uuid"),
    "bigint as it is": End("bigint", "{}000000000000", "{}000000000000", Id(rule=IdRule.SAME), "bigint"),
    "uuid by uuid5": End(
        "uuid",
        "'0000000{}-ABCD-4000-8000-00000000000F'",
        "0000000{}-abcd-4000-8000-00000000000f",
        Id(rule=IdRule.UUID5, namespace=NAMESPACE),
        "uuid",
    ),
    "integer by expression": End(
        "integer", "{}", "{}", Id(rule=IdRule.EXPRESSION, expression="'n' || $1", type="text"), "text"
    ),
    "uuid as it is": End(
        "uuid",
        "'0000000{}-ABCD-4000-8000-00000000000F'",
        "0000000{}-abcd-4000-8000-00000000000f",
        Id(rule=IdRule.SAME),
        "uuid",
    ),
}
PAIRS = [
    ("text by hash", "bigint as it is"),
    ("uuid by uuid5", "integer by expression"),
    ("uuid as it is", "text by hash"),
    *further(("bigint as it is", "uuid by uuid5"), ("integer by expression", "uuid as it is")),
]


def map_of(one: End, other: End) -> SchemaMap:
    def parents(name: str, end: End, **more: Stats) -> TableMap:
        types = {} if end.key == "text" else {"id": end.key}
        columns = (Column(name="title"),)
        return TableMap(name=name, source=f"w_{name}", types=types, id=end.id, columns=columns, **more)

    counts = Stats(table="facts_n", owner="fact", columns=(Stat(column="n", counted="used", by=("fact",)),))
    ends = {"fact_id": one.key, "source_id": other.key}
    return SchemaMap(
        name="joined",
        tables=(
            parents("facts", one, stats=counts),
            parents("sources", other),
            TableMap(
                name="used",
                source="w_used",
                key=("fact_id", "source_id"),
                types={name: type_ for name, type_ in ends.items() if type_ != "text"},
                stamped=False,
                references=(
                    Reference(column="fact_id", parent="facts", target="fact"),
                    Reference(column="source_id", parent="sources"),
                ),
                columns=(Column(name="quote"), Column(name="page", type="integer")),
                expressions={"relevance": "1.5"},
            ),
        ),
    )


def source(one: End, other: End) -> str:
    return (
        f"CREATE TABLE w_facts (id {one.key} PRIMARY KEY, title text);"
        f"CREATE TABLE w_sources (id {other.key} PRIMARY KEY, title text);"
        # With a key of its own beside the pair, as many have it.
        f"CREATE TABLE w_used (id bigserial PRIMARY KEY, fact_id {one.key} NOT NULL, source_id {other.key} NOT NULL,"
        " quote text, page int, UNIQUE (fact_id, source_id))"
    )


def target(one: End, other: End) -> str:
    own = "sync_version bigint, sync_run bigint, title text"

    def parents(name: str, end: End) -> str:
        key = "" if end.id is not None and end.id.rule is IdRule.SAME else f", key {end.key} NOT NULL"
        return f"CREATE TABLE {name} (id {end.id_type} PRIMARY KEY, {own}{key});"

    return (
        parents("facts", one)
        + parents("sources", other)
        + "CREATE TABLE used (row_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),"
        f" fact {one.id_type} NOT NULL REFERENCES facts, source_id {other.id_type} NOT NULL REFERENCES sources,"
        " quote text, page int, relevance float NOT NULL, noted text, UNIQUE (source_id, fact));"
        f"CREATE TABLE facts_n (fact {one.id_type} PRIMARY KEY REFERENCES facts ON DELETE CASCADE, n bigint DEFAULT 0)"
    )


@pytest_asyncio.fixture(loop_scope="session")
async def graph(new_database: Callable[..., str], tmp_path: Path) -> AsyncIterator[TestGraph]:
    async with bare_graph(new_database, tmp_path) as graph:
        await migrate_bookkeeping(graph.target, "kg")
        yield graph


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_join_table_becomes_links(graph: TestGraph, first: str, second: str) -> None:
    one, other = ENDS[first], ENDS[second]
    schema_map = map_of(one, other)
    await made_by(graph, write=source(one, other), target=target(one, other))
    await adopt(graph.write, "kg", schema_map)

    async def cycle() -> SyncResult:
        result = await SyncEngine(schema_map).run_cycle(graph.context())
        assert [table.error for table in result.tables if table.error] == []
        assert result.status is CycleStatus.DRAINED
        return result

    async def damage(*, repair: bool = False) -> dict[str, tuple[int, int, int]]:
        context = graph.context()
        found = await verify(
            schema_map,
            write=context.write,
            target=context.target,
            vectors=None,
            embedding="none",
            repair=repair,
            who="a test",
            why="a test",
        )
        assert [relation.problem for relation in found.relations if relation.problem] == []
        return {
            relation.name: (relation.missing.count, relation.extra.count, relation.stale.count)
            for relation in found.relations
            if relation.damaged
        }

    async def links(*columns: str) -> list[tuple[object, ...]]:
        listed = ", ".join(("f.title", "s.title", *columns))
        query = (
            f"SELECT {listed} FROM used u JOIN facts f ON f.id = u.fact JOIN sources s ON s.id = u.source_id"
            " ORDER BY 1, 2"
        )
        return [tuple(row) for row in await read(graph, query)]

    def used(fact: int, of: int) -> str:
        return f"INSERT INTO w_used (fact_id, source_id, quote, page) VALUES ({one.of(fact)}, {other.of(of)}, 'q', {of});"

    await write(
        graph,
        f"INSERT INTO w_facts VALUES ({one.of(1)}, 'f1'), ({one.of(2)}, 'f2');"
        f"INSERT INTO w_sources VALUES ({other.of(1)}, 's1'), ({other.of(2)}, 's2');"
        + used(1, 1) + used(1, 2) + used(2, 9) + used(9, 2),
    )  # fmt: skip
    assert (await cycle()).parked == 2
    assert await links("page", "relevance") == [("f1", "s1", 1, 1.5), ("f1", "s2", 2, 1.5)]
    assert await damage() == {}
    key = [one.form.format(2), other.form.format(9)]
    context = graph.context()
    row = await explain(context.write, context.target, None, schema_map, table="used", key=key)
    assert row.state is RowState.PARKED

    # Both sides arrive; columns change, one link's own key and one link's end.
    await write(
        graph,
        f"INSERT INTO w_facts VALUES ({one.of(9)}, 'f9'); INSERT INTO w_sources VALUES ({other.of(9)}, 's9');"
        f"UPDATE w_used SET quote = 'changed', id = id + 100 WHERE page = 1;"
        f"UPDATE w_used SET fact_id = {one.of(2)} WHERE fact_id = {one.of(1)} AND source_id = {other.of(2)};",
    )
    await on_target(graph, "UPDATE used SET noted = 'mine'")
    assert (await cycle()).parked == 0
    assert await links("quote", "noted") == [
        ("f1", "s1", "changed", "mine"),
        ("f2", "s2", "q", None),
        ("f2", "s9", "q", None),
        ("f9", "s2", "q", None),
    ]
    assert [tuple(row) for row in await read(graph, "SELECT n FROM facts_n ORDER BY n")] == [(1,), (1,), (2,)]
    assert await damage() == {}

    # Either end leaves and returns; links are deleted.
    await write(
        graph,
        f"DELETE FROM w_facts WHERE id = {one.of(9)}; DELETE FROM w_sources WHERE id = {other.of(9)};"
        "DELETE FROM w_used WHERE page = 1",
    )
    assert (await cycle()).parked == 2
    assert await links() == [("f2", "s2")]
    assert await damage() == {}
    await write(
        graph,
        f"INSERT INTO w_facts VALUES ({one.of(9)}, 'f9'); INSERT INTO w_sources VALUES ({other.of(9)}, 's9')",
    )
    assert (await cycle()).parked == 0
    assert await links() == [("f2", "s2"), ("f2", "s9"), ("f9", "s2")]

    await on_target(graph, "DELETE FROM used USING facts f WHERE f.id = fact AND f.title = 'f9'")
    await on_target(
        graph, "UPDATE used SET quote = 'damaged' FROM sources s WHERE s.id = source_id AND s.title = 's9'"
    )
    await on_target(
        graph,
        "INSERT INTO used (fact, source_id, relevance) SELECT f.id, s.id, 1 FROM facts f, sources s"
        " WHERE f.title = 'f1' AND s.title = 's1'",
    )
    assert (await damage(repair=True))["used"] == (1, 1, 1)
    await cycle()
    assert await links("quote") == [("f2", "s2", "q"), ("f2", "s9", "q"), ("f9", "s2", "q")]
    await write(graph, "TRUNCATE w_used")
    await cycle()
    assert await links() == []
    assert await damage() == {}
