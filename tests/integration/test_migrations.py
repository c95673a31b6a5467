"""Migrations on a real Postgres: once, together, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID, uuid5

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline import migrations
from syncline.errors import StoreRejected
from syncline.migrations import (
    ENGINE_VERSION_TABLE,
    VERSION_TABLE,
    migrate_bookkeeping,
    migrate_control,
    migrate_graph,
    migrate_write,
)
from syncline.migrations.revisions import upgrade
from syncline.stores.postgres import PostgresStore


@pytest_asyncio.fixture(loop_scope="session")
async def store(new_database: Callable[..., str]) -> AsyncIterator[PostgresStore]:
    store = PostgresStore("here", SecretStr(new_database()), pool_size=10, application_name="test")
    yield store
    await store.close()


async def _tables(store: PostgresStore, schema: str) -> set[str]:
    async with store.driver() as connection:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
    return {row["tablename"] for row in rows}


async def test_a_schema_gets_its_tables_and_its_version(store: PostgresStore) -> None:
    assert await migrate_write(store, "kg") == ["write_0001"]
    assert {"write_nodes", "write_edges", "sync_tombstone", VERSION_TABLE} <= await _tables(store, "kg")
    async with store.driver() as connection:
        assert await connection.fetchval(f"SELECT version_num FROM kg.{VERSION_TABLE}") == "write_0001"


async def test_nothing_lands_outside_the_schema(store: PostgresStore) -> None:
    await migrate_graph(store, "kg")
    assert await _tables(store, "public") == set()
    assert await _tables(store, "syncline") == set()


async def test_a_second_migration_changes_nothing(store: PostgresStore) -> None:
    for migrate in (migrate_write, migrate_graph):
        schema = migrate.__name__
        assert await migrate(store, schema)
        before = await _fingerprint(store)
        assert await migrate(store, schema) == []
        assert await _fingerprint(store) == before


async def test_being_up_to_date_is_one_statement_for_the_engine_state_and_one_for_the_tables(
    store: PostgresStore,
) -> None:
    await migrate_graph(store, "kg")
    statements: list[str] = []

    async with store.driver() as connection:
        connection.add_query_logger(lambda record: statements.append(record.query))
    await migrate_graph(store, "kg")
    # Each in a transaction of its own.
    assert [statement.split()[0] for statement in statements] == ["BEGIN", "SELECT", "COMMIT"] * 2
    assert ENGINE_VERSION_TABLE in statements[1]
    assert VERSION_TABLE in statements[4]


@pytest.mark.parametrize("extension", ["pgcrypto", "uuid-ossp"])
async def test_uuid5_is_that_of_an_extension_that_all_may_use(store: PostgresStore, extension: str) -> None:
    """Also where the bookkeeping tables were there before it; in both ways ids are the same as without it."""
    space = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
    texts = [("aé\\'x\"" * length)[:length] for length in (0, 1, 38, 39, 40, 55, 56, 500)]
    async with store.driver() as connection:
        await migrate_bookkeeping(store, "before")
        try:
            await connection.execute(f'CREATE SCHEMA tools; CREATE EXTENSION "{extension}" SCHEMA tools')
        except asyncpg.PostgresError:
            pytest.skip(f"this server comes without {extension}: that of `make test-versions` has one")
        for usable in (False, True):
            if usable:
                await connection.execute("GRANT USAGE ON SCHEMA tools TO PUBLIC")
            await connection.execute("UPDATE before.sync_engine_version SET version_num = 'engine_0009'")
            assert await migrate_bookkeeping(store, "before") == ["engine_0010"]
            made = "SELECT prosrc || coalesce(pg_get_function_sqlbody(oid), '') FROM pg_proc WHERE proname = 'uuid5'"
            assert ("tools." in await connection.fetchval(made)) is usable
            for text in texts:
                assert await connection.fetchval("SELECT syncline.uuid5($1, $2)", space, text) == uuid5(
                    space, text
                )


@pytest.mark.long("test_a_second_migration_changes_nothing")
async def test_schemas_migrate_concurrently_and_each_once(store: PostgresStore) -> None:
    wanted = [(migrate, f"kg_{number}_{migrate.__name__}") for number in range(4) for migrate in _BOTH]
    applied = await asyncio.gather(
        *(migrate(store, schema) for migrate, schema in [*wanted, *wanted]),
        migrate_control(store),
        migrate_control(store),
    )
    # The engine state and the tables of a graph-db are two transactions: each may be another caller's.
    together = [[*one, *other] for one, other in zip(applied[:8], applied[8:16], strict=True)]
    folder = Path(migrations.__file__).parent
    number = {
        side: len(list((folder / side).glob("revision_*.py")))
        for side in ("write", "engine", "graph", "control")
    }
    each = number["write"], number["engine"] + number["graph"]
    assert [(len(revisions), len(set(revisions))) for revisions in together] == [(n, n) for n in each] * 4
    assert sorted(len(revisions) for revisions in applied[16:]) == [0, number["control"]]


async def test_a_failing_migration_leaves_nothing_behind(store: PostgresStore, tmp_path: Path) -> None:
    folder = _folder(
        tmp_path / "first" / "write",
        "CREATE TABLE one (id int); CREATE TABLE two (id int);",
        "CREATE TABLE three (id int); CREATE TABLE one (id int);",
    )
    with pytest.raises(StoreRejected, match='relation "one" already exists') as refused:
        await upgrade(store, "kg", folder)
    assert refused.value.sqlstate == "42P07"
    async with store.driver() as connection:
        assert await connection.fetchval("SELECT to_regnamespace('kg')") is None


async def test_a_failing_later_revision_leaves_the_earlier_version(
    store: PostgresStore, tmp_path: Path
) -> None:
    create, change = "CREATE TABLE one (id int);", "ALTER TABLE one ADD x int;"
    released = _folder(tmp_path / "released" / "write", create)
    broken = _folder(tmp_path / "broken" / "write", create, f"{change} SELECT 1 / 0;")
    repaired = _folder(tmp_path / "repaired" / "write", create, change)
    assert await upgrade(store, "kg", released) == ["write_0001"]
    before = await _fingerprint(store)
    with pytest.raises(StoreRejected, match="division by zero"):
        await upgrade(store, "kg", broken)
    assert await _fingerprint(store) == before
    assert await upgrade(store, "kg", repaired) == ["write_0002"]
    assert await upgrade(store, "kg", repaired) == []


async def test_a_schema_of_a_newer_release_is_left_alone(store: PostgresStore) -> None:
    await migrate_write(store, "kg")
    async with store.driver() as connection:
        await connection.execute(f"UPDATE kg.{VERSION_TABLE} SET version_num = 'write_9999'")
    with pytest.raises(StoreRejected, match=r"write_9999 of a newer Syncline. Upgrade Syncline"):
        await migrate_write(store, "kg")


async def test_one_schema_cannot_be_both_sides_of_a_graph(store: PostgresStore) -> None:
    await migrate_write(store, "kg")
    with pytest.raises(StoreRejected, match="write_0001, which is not of the graph side"):
        await migrate_graph(store, "kg")


async def test_the_search_path_of_a_pooled_connection_is_what_it_was(store: PostgresStore) -> None:
    async with store.driver() as connection:
        before = await connection.fetchval("SHOW search_path")
    await migrate_graph(store, "kg")
    async with store.driver() as connection:
        assert await connection.fetchval("SHOW search_path") == before


_BOTH = (migrate_write, migrate_graph)


async def _fingerprint(store: PostgresStore) -> list[tuple[object, ...]]:
    """Return every catalogue row that DDL would have replaced."""
    async with store.driver() as connection:
        rows = await connection.fetch(
            "SELECT 'class', oid, xmin::text FROM pg_class "
            "UNION ALL SELECT 'proc', oid, xmin::text FROM pg_proc "
            "UNION ALL SELECT 'namespace', oid, xmin::text FROM pg_namespace ORDER BY 1, 2"
        )
    return [tuple(row) for row in rows]


def _folder(folder: Path, *scripts: str) -> Path:
    """Return the folder with one revision per script."""
    folder.mkdir(parents=True)
    down = None
    for number, script in enumerate(scripts, start=1):
        revision = f"write_{number:04}"
        (folder / f"{revision}.sql").write_text(script, encoding="utf-8")
        (folder / f"revision_{number:04}.py").write_text(
            "from pathlib import Path\n"
            "from syncline.migrations.revisions import run_script\n"
            f"revision, down_revision = {revision!r}, {down!r}\n"
            "def upgrade(connection):\n"
            f"    run_script(connection, Path(__file__).with_name({revision + '.sql'!r}))\n",
            encoding="utf-8",
        )
        down = revision
    return folder
