"""A map from a file to a synced graph, by commands, and what a run says of the map that it used."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from syncline import names
from syncline.control.graphs import Graph, GraphChanges
from syncline.messages.provider_state import ProviderState
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from tests.kit.databases import execute, rows
from tests.kit.small_shop import SHOP, added, composition, opened

WITH_PRICE = SHOP.replace("[title]", "{title: text, price: integer}")
WRITE = """
CREATE SCHEMA shop; CREATE TABLE shop.articles (code text PRIMARY KEY, title text, price integer);
INSERT INTO shop.articles VALUES ('b1', 'bolt', 5), ('n1', 'nut', 3)
"""


@pytest_asyncio.fixture(loop_scope="session")
async def shop(lab: SyncLab) -> AsyncIterator[SyncLab]:
    """A laboratory with the built-in provider, and a shop's tables in schema `shop` of both stores."""
    async with opened(lab, write=WRITE) as shop:
        yield shop


@pytest.fixture
def at_home(shop: SyncLab, with_stores: Callable[[SyncLab], CommandLine], tmp_path: Path) -> CommandLine:
    """The command line of somebody who reaches the stores too, in a folder with shop.yaml."""
    (tmp_path / "shop.yaml").write_text(SHOP)
    return with_stores(shop)


async def test_a_map_goes_from_a_file_to_a_synced_graph(
    shop: SyncLab, at_home: CommandLine, tmp_path: Path
) -> None:
    put: Any = await at_home.answer("map put", "shop.yaml", "--reason", "a shop opens")
    assert (put["created"], put["stored"]["name"], put["stored"]["version"]) == (True, "shop", 1)
    again: Any = await at_home.answer("map put", "shop.yaml", "--reason", "once more")
    assert (again["created"], again["stored"]["version"]) == (False, 1)

    await added(at_home)
    # Nothing of the knowledge graph is made in a schema that is somebody's own.
    [(tables,)] = await rows(
        shop.services.settings.graph_dsn,
        "SELECT array_agg(tablename::text ORDER BY 1) FROM pg_tables WHERE schemaname = 'shop'"
        " AND tablename NOT LIKE 'sync\\_%'",
    )
    assert tables == ["goods"]
    ran: Any = await at_home.answer("sync", "shop")
    assert ran["result"]["served"]["map"] == {"name": "shop", "version": 1, "hash": put["stored"]["hash"]}
    assert await rows(shop.services.settings.graph_dsn, "SELECT key, title FROM shop.goods ORDER BY 1") == [
        ("b1", "bolt"),
        ("n1", "nut"),
    ]
    report: Any = await at_home.answer("status GRAPH", "shop")
    assert report["state"]["provider"]["map"]["version"] == 1

    # A new version: said what it does, applied by the next cycle, no text embedded again.
    (tmp_path / "shop.yaml").write_text(WITH_PRICE)
    differs = await at_home("map", "diff", "shop", "shop.yaml")
    assert "+    columns: {title: text, price: integer}" in differs.out
    assert "goods: column price added; every row is read again, in the background." in differs.out
    said = await at_home("map", "put", "shop.yaml", "--reason", "prices")
    assert "map shop: version 2 stored" in said.out
    assert "column price added" in said.out
    assert "applied by the next cycle of shop" in said.out
    failed = await at_home("sync", "shop")
    assert failed.status == 1
    assert 'ALTER TABLE "shop"."goods" ADD COLUMN "price" integer' in failed.out + failed.err
    await execute(shop.services.settings.graph_dsn, "ALTER TABLE shop.goods ADD COLUMN price integer")
    ran = await at_home.answer("sync", "shop")
    [goods] = ran["result"]["tables"]
    assert (goods["captured"], goods["reread"]) == (2, "the map changed: column price added")
    assert ran["result"]["vectors"]["embedded"] == 0
    assert ran["result"]["served"]["map"]["version"] == 2
    shown = await at_home("status", "shop")
    assert "by map shop, version 2" in shown.out
    assert "goods: every row was read again, since the map changed: column price added." in shown.out

    # What operators ask of a graph is asked by its map.
    verified: Any = await at_home.answer("verify", "shop")
    assert {relation["name"] for relation in verified["relations"]} >= {"goods"}
    assert (verified["not_compared"], verified.get("damaged", 0)) == ([], 0)
    explained: Any = await at_home.answer("explain", "shop", "goods", "b1")
    assert explained["state"] == "in_sync" or explained["verdict"]

    granted = await at_home("grants", "--worker", "syncline", "shop")
    assert "ARRAY['articles']" in granted.out
    examined: Any = await at_home("doctor", "--json")
    failing = {check["name"] for check in json.loads(examined.out)["checks"] if check["status"] == "fail"}
    assert not {"write migrations", "graph migrations", "books migrations", "write-db: rights"} & failing

    listed: Any = await at_home.answer("map list")
    [line] = listed["maps"]
    assert (line["name"], line["version"], line["graphs"], line["why"]) == ("shop", 2, ["shop"], "prices")
    history: Any = await at_home.answer("map history", "shop")
    assert [(each["version"], each["graphs"]) for each in history["maps"]] == [(2, ["shop"]), (1, [])]
    assert history["maps"][1]["why"] == "a shop opens"
    assert all(each["who"] and each["starter"] and each["run_id"] for each in history["maps"])
    assert (await at_home("map", "show", "shop", "--version", "1")).out == SHOP
    document: Any = await at_home.answer("map show", "shop")
    assert document["document"] == WITH_PRICE
    diff: Any = await at_home.answer("map diff", "shop", "1", "2")
    [table] = diff["tables"]
    assert (table["table"], table["what"], table["reread"]) == ("goods", ["column price added"], True)

    # Pinned to the first version, the column leaves; nothing is read again.
    pinned = GraphChanges(composition=json.loads(composition(map="shop", map_version=1)))
    await shop.services.graphs.update("shop", pinned)
    ran = await at_home.answer("sync", "shop")
    assert ran["result"]["map_changes"] == ["goods: column price left; nothing is read again."]
    assert await rows(shop.services.settings.graph_dsn, "SELECT price FROM shop.goods ORDER BY key") == [
        (5,),
        (3,),
    ]
    assert (ran["result"]["served"]["map"]["version"], ran["result"]["tables"][0]["captured"]) == (1, 0)


@pytest.mark.long("test_a_map_goes_from_a_file_to_a_synced_graph")
async def test_a_map_that_is_not_there_is_refused_with_those_that_are(
    shop: SyncLab, at_home: CommandLine, tmp_path: Path
) -> None:
    await added(at_home)
    unknown = await at_home("graph", "set", "shop", "--composition", composition(map="shpo"))
    assert unknown.status == 2
    assert "composition key 'sync.options.map'" in unknown.err
    assert "(stored: shop)" in unknown.err
    late = await at_home("graph", "add", "other", "--composition", composition(map="shop", map_version=7))
    assert late.status == 2
    assert "map 'shop' has no version 7; its newest is 1" in late.err
    assert (await at_home("graph", "show", "other")).status == 2
    alone = await at_home("graph", "set", "shop", "--composition", composition(map_version=1))
    assert "`map_version` needs `map`" in alone.err
    # A record that was edited by hand is refused by the run.
    await execute(
        shop.services.settings.graph_dsn,
        "UPDATE syncline.graphs SET composition = jsonb_set(composition, '{sync,options,map}', '\"gone\"')",
    )
    ran = await at_home("sync", "shop")
    assert (ran.status, "no map 'gone' is stored (stored: shop)" in ran.err) == (1, True)

    for arguments, status, words in (
        (("map", "show", "shpo"), 2, "No map 'shpo' is stored (stored: shop)."),
        (("map", "show", "shop", "--version", "9"), 2, "Map 'shop' has no version 9; its newest is 1."),
        (("map", "history", "shpo"), 2, "No map 'shpo' is stored"),
        (("map", "diff", "shop"), 2, "Map shop has one version"),
        (("map", "put", "nowhere.yaml"), 2, "nowhere.yaml cannot be read: No such file or directory"),
    ):
        said = await at_home(*arguments)
        assert (said.status, words in said.err) == (status, True), said.err
    (tmp_path / "odd.yaml").write_text(SHOP.replace("name: shop", "name: My shop"))
    odd = await at_home("map", "put", "odd.yaml")
    assert (odd.status, "`--name`" in odd.err) == (2, True), odd.err
    assert (await at_home("map", "put", "odd.yaml", "--name", "my-shop")).status == 0
    (tmp_path / "bad.yaml").write_text(SHOP.replace("columns", "colums"))
    bad = await at_home("map", "put", "bad.yaml")
    assert bad.status == 2
    assert "bad.yaml is no valid map" in bad.err
    assert "line 7" in bad.err


@pytest.mark.long("test_a_map_goes_from_a_file_to_a_synced_graph")
async def test_two_graphs_do_not_share_a_collection(
    shop: SyncLab, at_home: CommandLine, tmp_path: Path
) -> None:
    """Prefix and collection make the name: `sho` and `p_goods` that of `shop_` and `goods`."""
    await added(at_home)
    other = SHOP.replace("name: shop", "name: other")
    clashing, apart = (other.replace("collection: ", f"collection: {word}_") for word in ("p", "x"))
    (tmp_path / "clashing.yaml").write_text(clashing)
    (tmp_path / "apart.yaml").write_text(apart)
    add = ("graph", "add", "other", "--no-schedule", "--qdrant-prefix", "sho", "--composition")
    said = []
    for command, status in (
        (("map", "put", "clashing.yaml"), 0),
        ((*add, composition(map="other")), 2),
        (("map", "put", "apart.yaml"), 0),
        ((*add, composition(map="other")), 0),
        (("map", "put", "clashing.yaml"), 2),
        (("graph", "set", "other", "--composition", composition(map="other", map_version=1)), 2),
    ):
        done = await at_home(*command)
        assert done.status == status, (command, done.err)
        said.append(done.err)
    assert "'shop_goods' is also one of graph 'shop'" in said[1]
    assert "name another prefix, or another collection in the map" in said[1]
    assert "would make 'shop_goods' a collection of graph 'other' and of graph 'shop'" in said[4]
    assert "'shop_goods' is also one of graph 'shop'" in said[5]


@pytest.mark.long("test_a_map_goes_from_a_file_to_a_synced_graph")
async def test_a_run_says_which_map_and_version_it_used(shop: SyncLab, at_home: CommandLine) -> None:
    await added(at_home)
    graph: Graph = await shop.services.graphs.get("shop")
    run = await shop.start(graph)
    result = await run.result()
    assert result.map is not None
    assert (result.map.name, result.map.version) == ("shop", 1)
    state = ProviderState.model_validate(await run.query(names.PROVIDER_STATE))
    assert state.map == result.map
    assert "map **shop** version 1" in await shop.details(run)
    # A run that fails says it too: it is known from its resolution on.
    await execute(shop.services.settings.graph_dsn, "ALTER TABLE shop.goods DROP COLUMN title")
    await execute(shop.services.settings.write_dsn, "INSERT INTO shop.articles VALUES ('c1', 'cog', 1)")
    run = await shop.start(graph)
    await shop.failure(run)
    assert (await shop.state(run)).provider.map == result.map


@pytest.mark.long("test_a_map_goes_from_a_file_to_a_synced_graph")
async def test_somebodys_tables_become_a_synced_copy_by_commands_alone(
    lab: SyncLab, at_home: CommandLine, tmp_path: Path
) -> None:
    """The road of docs/maps.md, with keys that are numbers."""
    await execute(
        lab.services.settings.write_dsn,
        "DROP SCHEMA shop CASCADE; CREATE SCHEMA shop;"
        "CREATE TABLE shop.maker (id serial PRIMARY KEY, name varchar(80));"
        "CREATE TABLE shop.item (id serial PRIMARY KEY, title text, maker_id int NOT NULL REFERENCES shop.maker);"
        "INSERT INTO shop.maker (name) VALUES ('Roe'); INSERT INTO shop.item (title, maker_id) VALUES ('bolt', 1)",
    )
    await execute(lab.services.settings.graph_dsn, "DROP SCHEMA shop CASCADE")
    proposed = await at_home("map", "propose", "--write-schema", "shop")
    (tmp_path / "shop.yaml").write_text(proposed.out)
    for command in (
        ("map", "propose", "--write-schema", "shop", "--create-target", "make"),
        ("map", "put", "shop.yaml"),
        ("graph", "add", "shop", "--no-schedule", "--composition", composition(map="shop")),
        ("graph", "adopt", "shop", "--map", "shop.yaml"),
        ("map", "check", "shop.yaml", "--graph", "shop"),
        ("map", "check", "shop", "--graph", "shop"),
        ("sync", "shop"),
    ):
        said = await at_home(*command)
        assert said.status == 0, (command, said.out, said.err)
    found = await rows(
        lab.services.settings.graph_dsn,
        "SELECT i.id, title, name FROM shop.item i JOIN shop.maker m ON m.id = i.maker_id",
    )
    assert found == [(1, "bolt", "Roe")]
    verified: Any = await at_home.answer("verify", "shop")
    assert (verified["not_compared"], verified.get("damaged", 0)) == ([], 0), verified
