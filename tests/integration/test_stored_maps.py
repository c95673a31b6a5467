"""Stored maps on a real Postgres: versions, who stored them, and compositions that name them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import cast

import pytest
import pytest_asyncio
from pydantic import JsonValue, SecretStr

from syncline.control.audit import Actor
from syncline.control.graphs import GraphChanges, GraphDraft, GraphRepository
from syncline.control.maps import MapOptions, MapRepository, map_options
from syncline.control.services import Services
from syncline.errors import CompositionInvalid, GraphNotFound, InputInvalid, MapInvalid, MapNotFound
from syncline.messages.provider_state import UsedMap
from syncline.migrations import migrate_control
from syncline.operator.health.check import CheckStatus
from syncline.operator.health.maps import check_maps
from syncline.stores.postgres import PostgresStore

DOCUMENT = "version: 1\nname: shop\ntables:\n  goods: {source: articles}\n"
ACTOR = Actor(who="ada", why="a shop opens", starter="ada@home", run_id="run-1")


@pytest_asyncio.fixture(loop_scope="session")
async def store(new_database: Callable[..., str]) -> AsyncIterator[PostgresStore]:
    store = PostgresStore("control", SecretStr(new_database()), pool_size=5, application_name="test")
    await migrate_control(store)
    yield store
    await store.close()


@pytest.fixture
def maps(store: PostgresStore) -> MapRepository:
    return MapRepository(store)


async def put(maps: MapRepository, document: str, *, name: str = "shop", run_id: str | None = None) -> int:
    done = await maps.put(name, document, hash="h", actor=ACTOR.model_copy(update={"run_id": run_id}))
    return done.stored.version


def named(map: str | None = "shop", **options: JsonValue) -> dict[str, JsonValue]:  # noqa: A002
    return {"sync": {"provider": "default", "options": {"map": map, **options}}}


async def test_put_stores_the_next_version_unless_it_is_the_newest_already(maps: MapRepository) -> None:
    first = await maps.put("shop", DOCUMENT, hash="h", actor=ACTOR)
    assert (first.created, first.stored.version, first.stored.who, first.stored.why) == (
        True,
        1,
        "ada",
        ACTOR.why,
    )
    # Another attempt of the same run has stored it; another run has not.
    assert (await maps.put("shop", DOCUMENT, hash="h", actor=ACTOR)).created
    again = await maps.put("shop", DOCUMENT, hash="h", actor=ACTOR.model_copy(update={"run_id": "run-2"}))
    assert (again.created, again.stored) == (False, first.stored)
    assert await put(maps, DOCUMENT + "# more\n") == 2
    assert await put(maps, DOCUMENT) == 3  # back to the first: a version of its own
    with pytest.raises(InputInvalid, match="another version than 2"):
        await maps.put("shop", DOCUMENT + "# mine\n", hash="h", actor=ACTOR, after=2)
    assert await put(maps, DOCUMENT, name="other") == 1
    assert [(found.name, found.version) for found in await maps.list(limit=9)] == [("other", 1), ("shop", 3)]
    assert [found.version for found in await maps.history("shop", limit=2)] == [3, 2]
    assert [found.version for found in await maps.history("shop", before=2, limit=2)] == [1]
    assert (await maps.get("shop", 2)).document == DOCUMENT + "# more\n"


async def test_put_by_many_at_once_gives_each_a_version_of_its_own(maps: MapRepository) -> None:
    found = await asyncio.gather(*(put(maps, f"{DOCUMENT}# {number}\n") for number in range(8)))
    assert sorted(found) == list(range(1, 9))


async def test_get_names_what_is_stored(maps: MapRepository) -> None:
    with pytest.raises(MapNotFound, match=r"\(stored: none\)"):
        await maps.get("shop")
    await put(maps, DOCUMENT)
    with pytest.raises(MapNotFound, match="'shop' has no version 2; its newest is 1"):
        await maps.get("shop", 2)
    with pytest.raises(MapNotFound, match=r"No map 'shpo' is stored \(stored: shop\)"):
        await maps.get("shpo")


async def test_load_reads_a_version_once(maps: MapRepository, store: PostgresStore) -> None:
    await put(maps, DOCUMENT)
    await put(maps, DOCUMENT.replace("goods", "wares"))
    assert await maps.load(MapOptions()) is None
    newest = await maps.load(MapOptions(map="shop"))
    assert newest is not None
    assert (newest[0].version, [table.name for table in newest[1]]) == (2, ["wares"])
    pinned = await maps.load(MapOptions(map="shop", map_version=1))
    assert pinned is not None
    assert [table.name for table in pinned[1]] == ["goods"]
    async with store.driver() as connection:
        await connection.execute("DELETE FROM syncline.maps")
    assert await maps.load(MapOptions(map="shop", map_version=1)) == pinned
    async with store.driver() as connection:
        await connection.execute(
            "INSERT INTO syncline.maps (name, version, document, hash, who, why) VALUES ('bad', 1, 'x', '', '', '')"
        )
    with pytest.raises(MapInvalid, match="map bad, version 1 is no valid map"):
        await maps.load(MapOptions(map="bad"))


async def test_a_graph_is_found_with_the_map_that_it_names(maps: MapRepository, store: PostgresStore) -> None:
    graphs = GraphRepository(store)
    await put(maps, DOCUMENT)
    await graphs.add(GraphDraft(slug="shop", composition=named() | {"shadow": named()["sync"]}))
    assert (await graphs.get_with_map("shop"))[1] == UsedMap(name="shop", version=1, hash="h")
    await put(maps, DOCUMENT + "#\n")
    graph, used = await graphs.get_with_map("shop")
    assert (graph, used) == (await graphs.get("shop"), UsedMap(name="shop", version=2, hash="h"))
    await graphs.update("shop", GraphChanges(composition=named(map_version=1) | {"shadow": named()["sync"]}))
    assert [
        used.version
        for shadow in (False, True)
        if (used := (await graphs.get_with_map("shop", shadow=shadow))[1])
    ] == [1, 2]
    await graphs.add(GraphDraft(slug="plain", composition={"sync": {"provider": "default"}}))
    assert (await graphs.get_with_map("plain"))[1] is None
    with pytest.raises(GraphNotFound):
        await graphs.get_with_map("nowhere")


@pytest.mark.long(after=1)
@pytest.mark.parametrize(
    ("composition", "key", "problem"),
    [
        (named("shpo"), "sync.options.map", r"no map 'shpo' is stored \(stored: shop\)"),
        (named(map_version=2), "sync.options.map_version", "map 'shop' has no version 2; its newest is 1"),
        (named(map_version=0), "sync.options.map_version", "greater than or equal to 1"),
        (named(None, map_version=1), "sync.options", "`map_version` needs `map`"),
        (named("Shop!"), "sync.options.map", "should match pattern"),
        (named(mpa="shop"), "sync.options.mpa", "unknown key"),
        ({"shadow": named("shpo")["sync"]}, "shadow.options.map", "no map 'shpo'"),
    ],
)
async def test_a_composition_that_names_no_stored_map_is_refused(
    maps: MapRepository, store: PostgresStore, composition: dict[str, JsonValue], key: str, problem: str
) -> None:
    graphs = GraphRepository(store)
    await put(maps, DOCUMENT)
    with pytest.raises(CompositionInvalid, match=problem) as refused:
        await graphs.add(GraphDraft(slug="shop", composition=composition))
    assert (refused.value.key, await graphs.list()) == (key, [])
    graph = await graphs.add(GraphDraft(slug="shop", composition=named()))
    with pytest.raises(CompositionInvalid, match=problem):
        await graphs.update("shop", GraphChanges(composition=composition))
    assert await graphs.get("shop") == graph


def test_map_options_are_those_of_the_built_in_provider() -> None:
    assert map_options(named(map_version=3)) == MapOptions(map="shop", map_version=3)
    assert map_options({"shadow": named()["sync"]}, shadow=True).map == "shop"
    for other in (
        {},
        {"sync": {"provider": "acme", "options": {"map": "shop"}}},
        {"sync": "default"},
        named("?"),
    ):
        assert map_options(other) == MapOptions()  # type: ignore[arg-type]


async def test_a_version_that_this_release_cannot_read_names_the_way_out(maps: MapRepository) -> None:
    assert await put(maps, DOCUMENT.replace("version: 1", "version: 7")) == 1
    with pytest.raises(MapInvalid, match="1 is the newest") as refused:
        await maps.load(MapOptions(map="shop"))
    assert "`syncline map show shop --version 1`" in (refused.value.fix or "")


async def test_doctor_shows_the_maps_that_cannot_be_read(maps: MapRepository, store: PostgresStore) -> None:
    graphs = GraphRepository(store)
    services = cast(Services, SimpleNamespace(maps=maps))
    await graphs.add(GraphDraft(slug="plain", composition={"sync": {"provider": "default"}}))
    assert await check_maps(services, await graphs.list()) == []
    await put(maps, DOCUMENT)
    await graphs.add(GraphDraft(slug="shop", composition=named()))
    [fine] = await check_maps(services, await graphs.list())
    assert (fine.status, fine.found) == (CheckStatus.OK, "1 stored map can be read")
    await put(maps, DOCUMENT.replace("version: 1", "version: 7"))
    [bad] = await check_maps(services, await graphs.list())
    assert bad.status is CheckStatus.FAIL
    assert bad.found.startswith("the map of shop: map shop, version 2 is no valid map")
    assert "syncline map show shop --version 2" in (bad.fix or "")
