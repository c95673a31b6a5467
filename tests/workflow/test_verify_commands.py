"""`syncline verify` against real stores: what it prints, and with which exit status."""

import getpass
import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from syncline.capture.install.install import adopt
from syncline.control.graphs import graph_changes
from syncline.engine import Column, SchemaMap, SyncEngine, TableMap
from syncline.messages.verification import Verification
from syncline.testing.lab import SyncLab
from syncline.testing.providers import FakeProvider
from tests.kit.command_line import CommandLine, Said

Verify = Callable[..., Awaitable[Said]]
InGraphDb = Callable[..., Awaitable[list[asyncpg.Record]]]
HOSTILE = "x\x1b[31m' y"


@pytest.fixture
def verify(kg: SyncLab, temporal_only: Callable[[SyncLab], CommandLine]) -> Verify:
    """A function that runs `syncline verify kg …` beside a worker over stores with one, empty graph."""
    syncline = temporal_only(kg)
    return lambda *arguments: syncline("verify", "kg", *arguments)


@pytest.fixture
def in_graph_db(kg: SyncLab) -> InGraphDb:
    """A function that runs a query on the graph-db."""
    dsn = kg.services.settings.graph_dsn.get_secret_value()

    async def fetch(sql: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn, server_settings={"search_path": "kg"})
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    return fetch


async def forge(in_graph_db: InGraphDb, *keys: str) -> None:
    await in_graph_db(
        "INSERT INTO llm_usage (id, key, model_id, prompt_tokens, completion_tokens, created_at, sync_version)"
        " SELECT syncline.key_uuid(key), key, 'm', 1, 1, now(), 1 FROM unnest($1::text[]) key",
        list(keys),
    )


@pytest.mark.long("test_damage_is_named_repaired_and_then_on_its_way")
async def test_an_equal_graph_says_so(verify: Verify) -> None:
    done = await verify()
    assert done.status == 0, done.out + done.err
    assert done.out.splitlines()[-1].startswith("0 compared in ")
    assert done.out.splitlines()[-1].endswith(": equal")


async def test_damage_is_named_repaired_and_then_on_its_way(verify: Verify, in_graph_db: InGraphDb) -> None:
    await forge(in_graph_db, HOSTILE)
    done = await verify()
    assert done.status == 1
    assert "llm_usage (rows), extra: " in done.out
    assert "\x1b" not in done.out
    assert "1 damaged; --repair fixes them" in done.out
    done = await verify("--repair", "--reason", "a forgery")
    assert done.status == 1
    assert "1 damaged, 1 queued for repair by the next cycle" in done.out
    [line] = await in_graph_db("SELECT who, why, action, table_name, rows FROM sync_audit")
    assert tuple(line) == (getpass.getuser(), "a forgery", "repair rows", "llm_usage", 1)
    [asked] = await in_graph_db("SELECT table_name, key, reason FROM sync_requeue")
    assert tuple(asked) == ("llm_usage", [HOSTILE], "verify")
    assert (await verify()).status == 0


@pytest.mark.long("test_damage_is_named_repaired_and_then_on_its_way")
async def test_only_so_many_keys_are_named_and_all_are_counted(
    verify: Verify, in_graph_db: InGraphDb
) -> None:
    await forge(in_graph_db, *(f"k{number}" for number in range(5)))
    assert " and 3 more" in (await verify("--keys", "2")).out
    found = Verification.model_validate_json((await verify("--keys", "2", "--json")).out)
    [usage] = [relation for relation in found.relations if relation.name == "llm_usage"]
    assert (usage.extra.count, len(usage.extra.keys)) == (5, 2)


async def test_more_keys_than_a_history_takes_are_counted_and_fewer_are_named(
    verify: Verify, in_graph_db: InGraphDb
) -> None:
    await forge(in_graph_db, *(f"{number}-{number % 10}".ljust(1_500, "x") for number in range(1_500)))
    found = Verification.model_validate_json((await verify("--keys", "10000", "--json", "--no-vectors")).out)
    [usage] = [relation for relation in found.relations if relation.name == "llm_usage"]
    assert usage.extra.count == 1_500
    assert 500 < len(usage.extra.keys) < 1_100


async def test_tables_can_be_chosen_and_vectors_left_out(verify: Verify) -> None:
    told = json.loads((await verify("--table", "facts", "--no-vectors", "--json")).out)
    assert [(relation["name"], relation["kind"]) for relation in told["relations"]] == [("facts", "rows")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--table", "nobody"), "No table 'nobody' is synced"),
        (("--repair", "--reason", " "), "give `who` and `why`"),
    ],
)
async def test_wrong_usage_is_a_sentence(verify: Verify, arguments: tuple[str, ...], said: str) -> None:
    done = await verify(*arguments)
    assert done.status == 2
    assert said in done.err
    assert "Traceback" not in done.out + done.err


SHOP = SchemaMap(
    name="shop", tables=(TableMap(name="goods", source="good_rows", columns=(Column(name="label"),)),)
)


async def served_by_shop(kg: SyncLab) -> FakeProvider:
    """Have graph `kg` synced by a provider that brings a table of its own, and sync it."""
    provider = FakeProvider("shop", cycle=SyncEngine(SHOP).run_cycle)
    kg.services.registry.register("sync", provider, "shop 1.0")
    graph = await kg.services.graphs.get("kg")
    changes = graph_changes("kg", {"composition": {"sync": {"provider": "shop"}}})
    await kg.services.graphs.update(graph.id, changes)
    write, target = kg.services.write_schema(graph), kg.services.target_schema(graph)
    async with write.store.driver() as connection:
        await connection.execute("CREATE TABLE kg.good_rows (id text PRIMARY KEY, label text)")
        await connection.execute("INSERT INTO kg.good_rows VALUES ('g1', 'one'), ('g2', 'two')")
    async with target.store.driver() as connection:
        await connection.execute(
            "CREATE TABLE kg.goods (id uuid PRIMARY KEY, key text, label text, sync_version bigint, sync_run bigint)"
        )
    await adopt(write.store, "kg", SHOP)
    await kg.run(graph)
    return provider


@pytest.mark.long("test_damage_is_named_repaired_and_then_on_its_way")
async def test_tables_that_only_a_provider_knows_are_never_called_equal(
    kg: SyncLab, verify: Verify, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    await served_by_shop(kg)
    done = await verify()
    assert done.status == 4, done.out + done.err
    assert "goods" in done.out
    assert "shop" in done.out
    assert done.out.splitlines()[-1].endswith(": not comparable")
    told = await verify("--json")
    found = Verification.model_validate_json(told.out)
    assert (told.status, found.equal, bool(found.not_compared)) == (4, False, True)
    explained = await temporal_only(kg)("explain", "kg", "goods", "g1")
    assert explained.status == 2
    assert "shop" in explained.err


@pytest.mark.long("test_damage_is_named_repaired_and_then_on_its_way")
async def test_a_provider_that_declares_its_map_is_compared_with_it(
    kg: SyncLab, verify: Verify, in_graph_db: InGraphDb, temporal_only: Callable[[SyncLab], CommandLine]
) -> None:
    provider = await served_by_shop(kg)
    provider.schema_map = SHOP  # type: ignore[attr-defined]
    done = await verify()
    assert done.status == 0, done.out + done.err
    assert done.out.splitlines()[-1].startswith("2 compared in ")
    await in_graph_db("UPDATE goods SET label = 'other' WHERE key = 'g1'")
    assert "goods (rows), stale: g1" in (await verify()).out
    syncline = temporal_only(kg)
    assert (await syncline("explain", "kg", "goods", "g1")).status == 0
    assert (await syncline("parked", "kg", "--table", "goods")).out == "nothing waits\n"
    # Without any cursor nothing says what it syncs.
    provider.schema_map = "no map"  # type: ignore[attr-defined]
    await in_graph_db("DELETE FROM sync_cursor")
    assert (await verify()).status == 4
