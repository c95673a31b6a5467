"""The control plane on a real Postgres: graph records, and the database's own checks of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.control.graphs import Graph, GraphChanges, GraphDraft, GraphRepository
from syncline.control.schedule_spec import ScheduleSpec
from syncline.errors import CompositionInvalid, GraphInvalid, GraphNotFound, StoreUnavailable
from syncline.messages.base import GraphStatus
from syncline.migrations import migrate_control
from syncline.stores.postgres import PostgresStore


@pytest_asyncio.fixture(loop_scope="session")
async def store(new_database: Callable[..., str]) -> AsyncIterator[PostgresStore]:
    store = PostgresStore("control", SecretStr(new_database()), pool_size=5, application_name="test")
    await migrate_control(store)
    yield store
    await store.close()


@pytest.fixture
def graphs(store: PostgresStore) -> GraphRepository:
    return GraphRepository(store)


async def test_a_graph_is_found_by_slug_and_by_id_as_it_was_added(graphs: GraphRepository) -> None:
    added = await graphs.add(
        GraphDraft(
            slug="world",
            name="The world",
            write_store="archive",
            qdrant_store="far",
            schedule=ScheduleSpec(cron="@hourly"),
            composition={"sync": {"provider": "acme", "options": {"depth": 3}}},
        )
    )
    assert (added.schema_name, added.qdrant_prefix) == ("world", "world_")
    assert added.ref.slug == "world"
    for reference in ("world", str(added.id), added.id):
        assert await graphs.get(reference) == added


async def test_an_unknown_graph_is_not_found(graphs: GraphRepository) -> None:
    for reference in ("nowhere", uuid4()):
        with pytest.raises(GraphNotFound, match=str(reference)):
            await graphs.get(reference)


async def test_a_slug_that_looks_like_an_id_comes_before_that_id(
    graphs: GraphRepository, store: PostgresStore
) -> None:
    name = "abcdef12-0000-4000-8000-000000000000"
    other = await graphs.add(GraphDraft(slug="other"))
    async with store.driver() as connection:
        await connection.execute("UPDATE syncline.graphs SET id = $1 WHERE id = $2", UUID(name), other.id)
    assert (await graphs.get(name)).slug == "other"
    await graphs.add(GraphDraft(slug=name, schema_name="x"))
    assert (await graphs.get(name)).slug == name


async def test_graphs_are_listed_by_slug(graphs: GraphRepository) -> None:
    for slug in ("b", "a", "c"):
        await graphs.add(GraphDraft(slug=slug))
    assert [graph.slug for graph in await graphs.list()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("draft", "field"),
    [
        (GraphDraft(slug="world", schema_name="x"), "slug"),
        (GraphDraft(slug="earth", schema_name="world", qdrant_prefix="x"), "schema_name"),
        (GraphDraft(slug="earth", qdrant_prefix="world_"), "qdrant_prefix"),
    ],
)
async def test_two_graphs_cannot_share_a_place(
    graphs: GraphRepository, draft: GraphDraft, field: str
) -> None:
    await graphs.add(GraphDraft(slug="world"))
    with pytest.raises(GraphInvalid) as refused:
        await graphs.add(draft)
    assert (refused.value.graph, refused.value.field) == (draft.slug, field)


async def test_the_same_schema_in_another_store_is_another_place(graphs: GraphRepository) -> None:
    await graphs.add(GraphDraft(slug="world"))
    far = GraphDraft(
        slug="far", schema_name="world", graph_store="far", qdrant_prefix="world_", qdrant_store="far"
    )
    assert (await graphs.add(far)).schema_name == "world"


async def test_a_graph_is_told_from_one_that_shares_its_write_place(graphs: GraphRepository) -> None:
    world = await graphs.add(GraphDraft(slug="world"))
    await graphs.add(
        GraphDraft(slug="old", schema_name="world", write_store="old", graph_store="old", qdrant_prefix="o_")
    )
    assert await graphs.alone(world)
    far = await graphs.add(
        GraphDraft(slug="far", schema_name="world", graph_store="far", qdrant_prefix="far_")
    )
    assert [await graphs.alone(graph) for graph in (world, far)] == [False, False]


async def test_an_invalid_composition_is_refused_before_it_is_stored(graphs: GraphRepository) -> None:
    with pytest.raises(CompositionInvalid):
        await graphs.add(GraphDraft(slug="world", composition={"snyc": {}}))
    await graphs.add(GraphDraft(slug="world"))
    with pytest.raises(CompositionInvalid):
        await graphs.update("world", GraphChanges(composition={"snyc": {}}))
    assert (await graphs.get("world")).composition == {}


async def test_a_graph_is_seen_once_it_is_prepared_and_never_if_that_fails(graphs: GraphRepository) -> None:
    seen: list[list[str]] = []

    async def prepare(graph: Graph) -> None:
        seen.append([known.slug for known in await graphs.list()])
        if graph.slug == "half":
            raise StoreUnavailable("write", "gone")

    await graphs.add(GraphDraft(slug="whole"), prepare=prepare)
    with pytest.raises(StoreUnavailable):
        await graphs.add(GraphDraft(slug="half"), prepare=prepare)
    assert seen == [[], ["whole"]]
    assert [graph.slug for graph in await graphs.list()] == ["whole"]


async def test_the_latest_graph_that_asks_is_the_default(graphs: GraphRepository) -> None:
    with pytest.raises(GraphNotFound, match="no graph is the default graph"):
        await graphs.default()
    await graphs.add(GraphDraft(slug="a", is_default=True))
    await graphs.add(GraphDraft(slug="b", is_default=True))
    assert (await graphs.default()).slug == "b"
    await graphs.update("a", GraphChanges(is_default=True))
    assert [graph.slug for graph in await graphs.list() if graph.is_default] == ["a"]
    await graphs.update("a", GraphChanges(is_default=False))
    with pytest.raises(GraphNotFound):
        await graphs.default()


async def test_racing_for_the_default_leaves_one(graphs: GraphRepository) -> None:
    slugs = [f"g{number}" for number in range(5)]
    for slug in slugs:
        await graphs.add(GraphDraft(slug=slug))
    change = GraphChanges(is_default=True)
    raced = await asyncio.gather(*(graphs.update(slug, change) for slug in slugs), return_exceptions=True)
    assert all(isinstance(lost, GraphInvalid) for lost in raced if isinstance(lost, BaseException))
    assert len([graph for graph in await graphs.list() if graph.is_default]) == 1


async def test_an_update_changes_what_it_names_and_the_time(graphs: GraphRepository) -> None:
    before = await graphs.add(GraphDraft(slug="world", composition={"sync": {"provider": "default"}}))
    after = await graphs.update(
        "world", GraphChanges(status=GraphStatus.PAUSED, schedule=ScheduleSpec(every_seconds=5))
    )
    assert (after.status, after.schedule.every_seconds) == (GraphStatus.PAUSED, 5)
    assert after.updated_at > before.updated_at
    same = {"updated_at", "status", "schedule"}
    assert after.model_dump(exclude=same) == before.model_dump(exclude=same)
    assert await graphs.update("world", GraphChanges()) == after


async def test_an_unknown_graph_cannot_be_updated(graphs: GraphRepository) -> None:
    with pytest.raises(GraphNotFound):
        await graphs.update("nowhere", GraphChanges(name="x"))


@pytest.mark.long(after=6)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("slug", "World"),
        ("slug", "a" * 64),
        ("name", ""),
        ("status", "sleeping"),
        ("write_store", "postgresql://me:secret@host/db"),
        ("graph_store", ""),
        ("schema_name", "Kg"),
        ("schema_name", "k" * 64),
        ("schema_name", "syncline"),
        ("schema_name", "information_schema"),
        ("schema_name", "pg_catalog"),
        ("qdrant_prefix", ""),
        ("qdrant_prefix", "a/b"),
        ("qdrant_store", "a b"),
        ("schedule", "[]"),
        ("schedule", '{"every_seconds": 0}'),
        ("schedule", '{"every_seconds": "60"}'),
        ("composition", "[]"),
        ("composition", '"default"'),
    ],
)
async def test_the_database_refuses_what_the_model_refuses(
    graphs: GraphRepository, store: PostgresStore, column: str, value: str
) -> None:
    graph = await graphs.add(GraphDraft(slug="world"))
    cast = "::jsonb" if column in ("schedule", "composition") else ""
    async with store.driver() as connection:
        with pytest.raises(asyncpg.CheckViolationError, match=f"graphs_{column}_valid"):
            await connection.execute(
                f"UPDATE syncline.graphs SET {column} = $1::text{cast} WHERE id = $2", value, graph.id
            )


async def test_the_database_allows_one_default(graphs: GraphRepository, store: PostgresStore) -> None:
    await graphs.add(GraphDraft(slug="a"))
    await graphs.add(GraphDraft(slug="b"))
    async with store.driver() as connection:
        with pytest.raises(asyncpg.UniqueViolationError, match="graphs_one_default"):
            await connection.execute("UPDATE syncline.graphs SET is_default = true")


async def test_a_record_written_by_hand_with_a_broken_schedule_is_named(
    graphs: GraphRepository, store: PostgresStore
) -> None:
    await graphs.add(GraphDraft(slug="world"))
    async with store.driver() as connection:
        await connection.execute('UPDATE syncline.graphs SET schedule = \'{"cron": "now"}\'')
    with pytest.raises(GraphInvalid, match=r"Graph 'world', schedule\.cron"):
        await graphs.get("world")


async def test_a_broken_record_beside_it_leaves_a_graph_its_answer(
    graphs: GraphRepository, store: PostgresStore
) -> None:
    one = await graphs.add(GraphDraft(slug="one"))
    two = GraphDraft(slug="two", schema_name="one", graph_store="other", qdrant_prefix="two_")
    await graphs.add(two)
    async with store.driver() as connection:
        broken = 'UPDATE syncline.graphs SET schedule = \'{"cron": "now"}\' WHERE slug = $1'
        await connection.execute(broken, two.slug)
    assert not await graphs.alone(one)


async def test_a_row_with_nothing_but_its_names_is_a_graph(
    graphs: GraphRepository, store: PostgresStore
) -> None:
    async with store.driver() as connection:
        await connection.execute(
            "INSERT INTO syncline.graphs (slug, name, schema_name, qdrant_prefix) "
            "VALUES ('w', 'W', 'w', 'w_')"
        )
    graph = await graphs.get("w")
    assert (graph.status, graph.schedule, graph.composition) == (GraphStatus.ACTIVE, ScheduleSpec(), {})
