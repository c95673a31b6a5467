"""Who shares a write-db with others cannot have anything run with the rights of the worker, the adopter or a neighbour.

Each attack is made with a role of its own, as its tables' owner, and leaves a lock behind wherever its code ran:
a lock can be taken in a transaction that only reads, too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import adopt, undo
from syncline.capture.listen.connection import ListenConnection
from syncline.capture.listen.session import ListenSession
from syncline.capture.listen.starter import Directory, ListenContext, RateLimiter
from syncline.control.graphs import Graph, GraphDraft, GraphRecords
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import SyncEngine, run_cycle
from syncline.engine.knowledge_graph import KNOWLEDGE_GRAPH
from syncline.engine.table_map import Column, SchemaMap, TableMap
from syncline.errors import SchemaMismatch, StoreRejected
from syncline.messages.sync import CycleStatus
from syncline.migrations.revisions import upgrade
from syncline.operator.health.check import CheckStatus
from syncline.operator.health.tenancy import check_capture, check_locks, check_role, check_schemas
from syncline.provider import NullMeter
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import writing
from syncline.testing.graphs import TestGraph, read
from syncline.testing.lab import eventually
from syncline.verify import verify
from tests.kit.later_revision import with_later_revision
from tests.kit.run_starter import RunsStartedBy

ROLES = ("over_worker", "over_mallory", "over_alice", "over_adopter")
WORKER, MALLORY, ALICE, ADOPTER = ROLES
ITEMS = SchemaMap(
    name="items", tables=(TableMap(name="items", source="item", columns=(Column(name="title"),)),)
)
EVIL = """
    CREATE FUNCTION {schema}.evil(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN PERFORM pg_advisory_lock_shared(66, hashtext(current_user)); RETURN $1; END $$;
    CREATE FUNCTION {schema}.evil_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM {schema}.evil('row'); RETURN NEW; END $$;
"""
RIGHTS = f"""
    GRANT USAGE ON SCHEMA kg, syncline TO {WORKER};
    GRANT SELECT ON ALL TABLES IN SCHEMA kg TO {WORKER};
    GRANT DELETE ON kg.sync_tombstone TO {WORKER}; GRANT UPDATE ON kg.sync_notify TO {WORKER};
    GRANT SELECT, INSERT, UPDATE ON syncline.listener TO {WORKER};
"""


@pytest.fixture(scope="module")
def roles(postgres_admin: Callable[[str], object]) -> Iterator[None]:
    """Roles that may log in, and nothing else."""
    for role in ROLES:
        postgres_admin(f"CREATE ROLE {role} LOGIN")
    yield
    for role in ROLES:
        postgres_admin(f"DROP ROLE {role}")


def as_role(dsn: str, role: str) -> str:
    return dsn.replace("postgres@", f"{role}@")


@asynccontextmanager
async def connected(dsn: str, role: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(as_role(dsn, role))
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def store_of(dsn: str, role: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore("write", SecretStr(as_role(dsn, role)), pool_size=3, application_name="test")
    try:
        yield store
    finally:
        await store.close()


async def ran_as(dsn: str) -> set[str]:
    """Return with whose rights the code of another has run, its owner's left out."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT rolname FROM pg_roles r JOIN pg_locks l ON l.locktype = 'advisory' AND l.classid = 66"
            " AND l.objid::bigint = hashtext(rolname)::bigint & 4294967295"
        )
    finally:
        await connection.close()
    return {row["rolname"] for row in rows} - {MALLORY}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_write_db(
    roles: None,
    graph_templates: tuple[str, str],
    postgres_server: EmbeddedPostgres,
    postgres_admin: Callable[[str], object],
) -> AsyncIterator[str]:
    """Name of a template: the graph's write tables are Mallory's there, and others are Alice's."""
    name = "template_taken_over"
    postgres_admin(f"CREATE DATABASE {name} TEMPLATE {graph_templates[0]}")
    dsn = postgres_server.dsn(name)
    superuser = await asyncpg.connect(dsn)
    for table in await superuser.fetch("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'kg'"):
        if not table["name"].startswith("sync_"):
            await superuser.execute(f"ALTER TABLE kg.{table['name']} OWNER TO {MALLORY}")
    await superuser.execute(
        f"ALTER SCHEMA kg OWNER TO {MALLORY}; CREATE SCHEMA alice AUTHORIZATION {ALICE};"
        f"CREATE TABLE alice.item (id text PRIMARY KEY, title text); ALTER TABLE alice.item OWNER TO {ALICE}"
    )
    async with store_of(dsn, "postgres") as store:
        await adopt(store, "kg", KNOWLEDGE_GRAPH)
        await adopt(store, "alice", ITEMS)
    await superuser.execute(f"{RIGHTS} SET ROLE {MALLORY}; {EVIL.format(schema='kg')}")
    await superuser.close()
    yield name
    postgres_admin(f"DROP DATABASE {name}")


@pytest_asyncio.fixture(loop_scope="session")
async def graph(
    shared_write_db: str, graph: TestGraph, new_database: Callable[..., str]
) -> AsyncIterator[TestGraph]:
    """A graph whose write tables are Mallory's, who shares the database with Alice; its worker is no superuser."""
    dsn = new_database(shared_write_db)
    async with store_of(dsn, WORKER) as worker:
        yield replace(graph, write=worker, write_dsn=dsn)


async def attack(graph: TestGraph, script: str) -> None:
    async with connected(graph.write_dsn, MALLORY) as mallory:
        await mallory.execute(script)


# What the worker reads

SWAPPED = (
    "ALTER TABLE kg.write_nodes RENAME TO was;"
    "CREATE VIEW kg.write_nodes AS SELECT * FROM kg.was WHERE kg.evil('view') IS NOT NULL;"
    f"GRANT SELECT ON kg.write_nodes TO {WORKER}"
)


@pytest.mark.long(after=3)
@pytest.mark.parametrize(
    "script",
    [
        SWAPPED,
        SWAPPED.replace("write_nodes", "sync_tombstone"),
        (
            "ALTER TABLE kg.write_nodes ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY p ON kg.write_nodes USING (kg.evil(id) = id)"
        ),
        "CREATE INDEX ON kg.write_nodes ((kg.evil('index') || concept))",
        "CREATE INDEX ON kg.sync_tombstone (seq) WHERE source_table = kg.evil('predicate')",
        "CREATE STATISTICS kg.s ON (kg.evil('statistics') || concept) FROM kg.write_nodes",
        (
            "CREATE TABLE kg.heir () INHERITS (kg.write_nodes);"
            "CREATE INDEX ON kg.heir ((kg.evil('heir') || concept))"
        ),
        (
            "CREATE TYPE kg.mood AS ENUM ('node', 'm');"
            "CREATE FUNCTION kg.cast(kg.mood) RETURNS text LANGUAGE sql AS $$ SELECT kg.evil('cast') $$;"
            "CREATE CAST (kg.mood AS text) WITH FUNCTION kg.cast(kg.mood); CREATE DOMAIN kg.moods AS kg.mood;"
            "ALTER TABLE kg.write_nodes ALTER concept TYPE kg.moods USING concept::kg.mood"
        ),
        (
            "CREATE FUNCTION kg.same(varchar, varchar) RETURNS boolean LANGUAGE sql AS "
            "$$ SELECT kg.evil('operator') IS NOT NULL $$;"
            "CREATE OPERATOR kg.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = kg.same);"
            "ALTER TABLE kg.write_facts ALTER dedup_status TYPE varchar"
        ),
    ],
    ids=["view", "tombstones", "policy", "index", "predicate", "statistics", "heir", "domain", "operator"],
)
async def test_cycle_runs_no_code_of_a_table_owner(graph: TestGraph, script: str) -> None:
    insert = (
        "INSERT INTO kg.write_nodes (id, concept) VALUES ('n', 'node');"
        "INSERT INTO kg.write_facts (id, content, dedup_status) VALUES ('f', 'fact', 'ready')"
    )
    await attack(graph, insert)
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    await attack(graph, insert.replace("'n'", "'m'").replace("'f'", "'g'"))
    await attack(graph, script)
    # As a process that has seen the tables fit, and as another.
    engine = SyncEngine(KNOWLEDGE_GRAPH)
    for run in (run_cycle, engine.run_cycle):
        with suppress(StoreRejected, SchemaMismatch):
            await run(graph.context())
    assert await ran_as(graph.write_dsn) == set()
    if "kg.=" in script:
        assert [row["key"] for row in await read(graph, "SELECT key FROM facts ORDER BY 1")] == ["f", "g"]


async def test_verify_runs_no_cast_of_a_table_owner(graph: TestGraph) -> None:
    await attack(graph, "INSERT INTO kg.write_nodes (id, concept) VALUES ('n', 'calm')")
    await run_cycle(graph.context())
    await attack(
        graph,
        "CREATE TYPE kg.mood AS ENUM ('calm'); ALTER TABLE kg.write_nodes ALTER concept TYPE kg.mood USING concept::kg.mood",
    )
    asked = {"write": graph.context().write, "target": graph.context().target}
    found = await verify(KNOWLEDGE_GRAPH, **asked, vectors=None, embedding="none", tables=["nodes"])
    assert [relation.problem for relation in found.relations] == [None] * len(found.relations)
    await attack(
        graph,
        "CREATE FUNCTION kg.cast(kg.mood) RETURNS text LANGUAGE sql AS $$ SELECT kg.evil('cast') $$;"
        "CREATE CAST (kg.mood AS text) WITH FUNCTION kg.cast(kg.mood)",
    )
    found = await verify(KNOWLEDGE_GRAPH, **asked, vectors=None, embedding="none", tables=["nodes"])
    assert any(relation.problem for relation in found.relations)
    assert await ran_as(graph.write_dsn) == set()


async def test_cycle_reads_an_index_on_the_function_of_an_only_owner(graph: TestGraph) -> None:
    """Where nobody else has captured tables, there is nobody to take anything from."""
    superuser = await graph.connect_write()
    await superuser.execute("DROP SCHEMA alice CASCADE; CREATE INDEX ON kg.write_nodes ((kg.evil(concept)))")
    await superuser.close()
    await attack(graph, "INSERT INTO kg.write_nodes (id, concept) VALUES ('n', 'node')")
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED


# What the worker writes


@pytest.mark.long(after=4)
@pytest.mark.parametrize(
    "script",
    [
        "CREATE TRIGGER t BEFORE UPDATE ON kg.sync_notify FOR EACH ROW EXECUTE FUNCTION kg.evil_row()",
        "CREATE RULE r AS ON UPDATE TO kg.sync_notify DO ALSO SELECT kg.evil('rule')",
        ("ALTER TABLE kg.sync_notify ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON kg.sync_notify USING (kg.evil('policy') IS NOT NULL)"),
        "ALTER TABLE kg.sync_notify ADD CHECK (kg.evil('check') IS NOT NULL)",
        "CREATE INDEX ON kg.sync_notify (kg.evil(wanted::text))",
        "CREATE STATISTICS kg.s ON (kg.evil('statistics') || wanted), (one) FROM kg.sync_notify",
        "ALTER TABLE kg.sync_notify ADD g text GENERATED ALWAYS AS (kg.evil('generated')) STORED",
        ("CREATE TABLE kg.heir () INHERITS (kg.sync_notify); INSERT INTO kg.heir VALUES (true);"
        "CREATE TRIGGER t BEFORE UPDATE ON kg.heir FOR EACH ROW EXECUTE FUNCTION kg.evil_row()"),
        "CREATE TABLE kg.child (one boolean REFERENCES kg.sync_notify ON UPDATE CASCADE)",
        ("CREATE DOMAIN kg.d AS boolean CHECK (kg.evil('domain') IS NOT NULL);"
        "CREATE INDEX ON kg.sync_notify ((wanted::kg.d))"),
        ("ALTER TABLE kg.sync_notify ADD CHECK ("
        "ts_rewrite('a', $q$ SELECT 'b'::tsquery, kg.evil('q')::tsquery $q$) IS NOT NULL) NOT VALID"),
        ("ALTER TABLE kg.sync_notify RENAME TO was;"
        f"CREATE VIEW kg.sync_notify AS SELECT * FROM kg.was; GRANT SELECT, UPDATE ON kg.sync_notify TO {WORKER};"
        "CREATE TRIGGER t INSTEAD OF UPDATE ON kg.sync_notify FOR EACH ROW EXECUTE FUNCTION kg.evil_row()"),
    ],
    ids=[
        "trigger", "rule", "policy", "check", "index", "statistics", "generated", "heir", "foreign key",
        "domain", "built in", "view",
    ],
)  # fmt: skip
async def test_listener_writes_nothing_where_the_owner_put_code(graph: TestGraph, script: str) -> None:
    async with graph.write.alone("listener") as connection:
        line = ListenConnection(connection, "test")
        await line.throttle("kg", 1)
        await attack(graph, script)
        with pytest.raises(asyncpg.PostgresError):
            await line.throttle("kg", 1)
        told = await line.want({"kg": False})
        assert told.schemas == frozenset()
        assert told.problem
        # The line is as good as before for everything else.
        assert (await line.snapshot()).xmin > 0
        assert await ran_as(graph.write_dsn) == set()


async def test_guarded_write_keeps_a_trigger_out_until_it_has_committed(graph: TestGraph) -> None:
    async with graph.write.driver() as connection, connected(graph.write_dsn, MALLORY) as mallory:
        await mallory.execute("SET lock_timeout = '100ms'")
        async with writing(connection, ["kg.sync_notify"]):
            for statement in (
                "CREATE TRIGGER t BEFORE UPDATE ON kg.sync_notify FOR EACH ROW EXECUTE FUNCTION kg.evil_row()",
                "CREATE INDEX CONCURRENTLY ON kg.sync_notify (kg.evil(wanted::text))",
                "CREATE STATISTICS kg.s ON (kg.evil('s') || wanted), (one) FROM kg.sync_notify",
                "CREATE TABLE kg.heir () INHERITS (kg.sync_notify)",
            ):
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await mallory.execute(statement)
            await connection.execute("UPDATE ONLY kg.sync_notify SET wanted = wanted")
            # Its writers and readers go on.
            await mallory.execute("UPDATE kg.sync_notify SET muted_until = '-infinity' WHERE NOT one")


async def test_prune_leaves_tombstones_whose_owner_put_a_trigger_on_them(graph: TestGraph) -> None:
    await attack(graph, "INSERT INTO kg.write_nodes (id, concept) VALUES ('n', 'node'), ('o', 'node')")
    await run_cycle(graph.context())
    await attack(
        graph,
        "DELETE FROM kg.write_nodes WHERE id = 'n';"
        "UPDATE kg.sync_tombstone SET deleted_at = '2001-01-01';"
        "CREATE TRIGGER t BEFORE DELETE ON kg.sync_tombstone FOR EACH ROW EXECUTE FUNCTION kg.evil_row()",
    )
    await run_cycle(graph.context())
    assert [row["key"] for row in await read(graph, "SELECT key FROM nodes")] == ["o"]
    assert await ran_as(graph.write_dsn) == set()


# What the listener hears


@asynccontextmanager
async def listening(graph: TestGraph, records: list[Graph], woken: list[str]) -> AsyncIterator[ListenSession]:
    async def read_records() -> GraphRecords:
        return GraphRecords(valid=records, invalid={})

    async def trigger(graph: Graph) -> str:
        woken.append(graph.slug)
        return "started"

    async with graph.write.alone("listener") as connection:
        context = ListenContext(
            store=graph.write.name, key=None, directory=Directory(read_records), limiter=RateLimiter(100),
            runs=RunsStartedBy(trigger), meter=NullMeter(), report=lambda _: None,
        )  # fmt: skip
        held = ListenSession(ListenConnection(connection, "test"), graph.write, context)
        await held.begin()
        listening = asyncio.create_task(held.run())
        try:
            yield held
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def test_listener_hears_only_of_schemas_that_a_record_names(graph: TestGraph) -> None:
    superuser = await graph.connect_write()
    await superuser.execute(f"CREATE SCHEMA m AUTHORIZATION {MALLORY}")
    await superuser.close()
    await attack(
        graph,
        "CREATE TABLE m.sync_notify (muted_until timestamptz); INSERT INTO m.sync_notify VALUES (now());"
        f"GRANT USAGE ON SCHEMA m TO {WORKER}; GRANT ALL ON m.sync_notify TO {WORKER};"
        "CREATE TRIGGER t BEFORE UPDATE ON m.sync_notify FOR EACH ROW EXECUTE FUNCTION kg.evil_row()",
    )
    woken: list[str] = []
    async with listening(graph, [_record()], woken) as held, connected(graph.write_dsn, MALLORY) as mallory:
        claims = [
            "1 m",
            "2 m",
            "² kg",
            f"{'9' * 5000} kg",
            "99999999999999999999 kg",
            "1",
            "",
            "x kg",
            "-1 kg",
        ]
        claims += [f"{number} {'k' * 63}{number}" for number in range(2000)]
        async with mallory.transaction():
            for claim in claims:
                await mallory.execute("SELECT pg_notify('syncline_write', $1)", claim)
        await mallory.execute("SELECT pg_notify('syncline_write', '5 kg')")
        await eventually(lambda: _is(woken == ["kg"]))
        assert held._debouncer.low_watermark(await held._connection.snapshot()) > 5
        assert len(held._unknown) <= 100
        assert set(held._debouncer._by_schema) <= {"kg"}
    assert woken == ["kg"]
    assert await ran_as(graph.write_dsn) == set()


async def test_claim_about_the_far_future_is_not_held_for_ever(graph: TestGraph) -> None:
    woken: list[str] = []
    async with listening(graph, [_record()], woken) as held, connected(graph.write_dsn, MALLORY) as mallory:
        await mallory.execute("SELECT pg_notify('syncline_write', '999999999999 kg')")
        await eventually(lambda: _is(bool(woken)))
        await mallory.execute("SELECT pg_current_xact_id()")
        await eventually(lambda: _is(seen_all(held)))


def seen_all(held: ListenSession) -> bool:
    return all(wake.due is None and wake.lowest is None for wake in held._debouncer._by_schema.values())


def _record() -> Graph:
    now = datetime.now(UTC)
    declared = GraphDraft(slug="kg").completed()
    return Graph.model_validate({**declared, "id": UUID(int=1), "created_at": now, "updated_at": now})


async def _is(value: bool) -> bool:
    return value


# What adoption makes


async def test_adoption_made_by_a_superuser_acts_as_the_owner_of_the_tables(graph: TestGraph) -> None:
    await attack(
        graph,
        "INSERT INTO kg.write_nodes (id, concept) VALUES ('n', 'node'); DROP TABLE kg.sync_tombstone;"
        "CREATE TABLE kg.sync_tombstone (source_table text, key text[]);"
        "CREATE TRIGGER t BEFORE INSERT ON kg.sync_tombstone FOR EACH ROW EXECUTE FUNCTION kg.evil_row()",
    )
    superuser = await graph.connect_write()
    await superuser.execute("DELETE FROM write_nodes")
    assert await ran_as(graph.write_dsn) == set()
    await superuser.close()


async def test_adoption_again_reads_no_table_that_would_run_code(graph: TestGraph) -> None:
    """What was captured in a gap is read again by another sync_tombstone, whose keys come from the one before."""
    await attack(
        graph,
        "DROP TRIGGER capture_delete ON kg.write_nodes;"
        "CREATE INDEX ON kg.sync_tombstone ((kg.evil('index') || source_table))",
    )
    async with store_of(graph.write_dsn, "postgres") as superuser:
        with pytest.raises(StoreRejected, match="calls what is not built in"):
            await adopt(superuser, "kg", KNOWLEDGE_GRAPH)
    assert await ran_as(graph.write_dsn) == set()


async def test_migration_writes_into_no_version_table_that_would_run_code(
    graph: TestGraph, tmp_path: Path
) -> None:
    later = with_later_revision(tmp_path, "write", "CREATE TABLE later (id int)")
    superuser = await graph.connect_write()
    await superuser.execute(f"ALTER TABLE sync_schema_version OWNER TO {MALLORY}")
    await superuser.close()
    await attack(
        graph,
        "CREATE TRIGGER t BEFORE UPDATE ON kg.sync_schema_version FOR EACH ROW EXECUTE FUNCTION kg.evil_row()",
    )
    async with store_of(graph.write_dsn, "postgres") as store:
        with pytest.raises(StoreRejected, match="has trigger"):
            await upgrade(store, "kg", later / "write")
    assert await ran_as(graph.write_dsn) == set()


async def test_migration_finds_operators_in_pg_catalog_alone(graph: TestGraph, tmp_path: Path) -> None:
    """Behind SET ROLE a function can go back to who it was: to the administrator who migrates."""
    later = with_later_revision(tmp_path, "write", "CREATE TABLE later (id int)")
    superuser = await graph.connect_write()
    await superuser.execute(f"ALTER TABLE sync_schema_version OWNER TO {MALLORY}")
    await superuser.close()
    await attack(
        graph,
        "CREATE FUNCTION kg.same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS $$"
        " BEGIN RESET ROLE; PERFORM kg.evil('operator'); RETURN $1::text = $2::text; END $$;"
        "CREATE OPERATOR kg.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = kg.same)",
    )
    async with store_of(graph.write_dsn, "postgres") as store:
        assert await upgrade(store, "kg", later / "write") == ["write_later"]
    assert await ran_as(graph.write_dsn) == set()


async def test_stamp_of_one_schema_never_runs_in_the_writes_of_another(graph: TestGraph) -> None:
    await attack(
        graph,
        "CREATE OR REPLACE FUNCTION kg.capture_version() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM kg.evil('stamp'); RETURN NEW; END $$",
    )
    async with connected(graph.write_dsn, ALICE) as alice:
        await alice.execute("INSERT INTO alice.item VALUES ('a', 'title'); DELETE FROM alice.item")
        assert await ran_as(graph.write_dsn) == set()
        owners = await alice.fetch(
            "SELECT DISTINCT proowner::regrole::text AS owner FROM pg_proc p JOIN pg_trigger t ON t.tgfoid = p.oid"
            " WHERE t.tgrelid = 'alice.item'::regclass"
        )
        assert [row["owner"] for row in owners] == [ALICE]


async def test_stamp_is_right_whatever_the_search_path_of_the_writer(graph: TestGraph) -> None:
    async with connected(graph.write_dsn, ALICE) as alice:
        await alice.execute(
            "CREATE FUNCTION alice.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS $$ SELECT '1'::xid8 $$;"
            "SET search_path = alice, pg_catalog"
        )
        async with alice.transaction():
            await alice.execute("INSERT INTO alice.item VALUES ('a', 'title')")
            xid = await alice.fetchval("SELECT pg_catalog.pg_current_xact_id()::text")
        assert await alice.fetchval("SELECT sync_xid::text FROM alice.item") == xid


@pytest.mark.long(after=3)
@pytest.mark.parametrize(
    ("script", "told"),
    [
        (f"ALTER TABLE shop.other OWNER TO {ALICE}", "belong to several roles"),
        (f"ALTER SCHEMA shop OWNER TO {ALICE}", "could replace what acts as"),
        (
            (
                "CREATE TABLE shop.sync_tombstone (LIKE kg.sync_tombstone);"
                f"ALTER TABLE shop.sync_tombstone OWNER TO {ALICE}"
            ),
            "belongs to",
        ),
        (
            (
                "CREATE FUNCTION shop.capture_version() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
                f"ALTER FUNCTION shop.capture_version() OWNER TO {ALICE}"
            ),
            "belongs to",
        ),
        (f"ALTER SCHEMA syncline OWNER TO {ALICE}", "all writers of this database"),
        (f"ALTER TABLE syncline.listener OWNER TO {ALICE}", "all writers of this database"),
        ("DROP TABLE syncline.listener; CREATE VIEW syncline.listener AS SELECT 1", "all writers of this"),
    ],
    ids=["owners", "schema", "tombstones", "function", "shared schema", "listener", "view"],
)
async def test_adoption_refuses_what_another_could_replace(graph: TestGraph, script: str, told: str) -> None:
    superuser = await graph.connect_write()
    await superuser.execute(
        f"CREATE SCHEMA shop AUTHORIZATION {MALLORY}; SET ROLE {MALLORY};"
        "CREATE TABLE shop.item (id text PRIMARY KEY, title text); CREATE TABLE shop.other (id text PRIMARY KEY);"
        f"RESET ROLE; {script}"
    )
    await superuser.close()
    shop = SchemaMap(name="shop", tables=(*ITEMS.tables, TableMap(name="others", source="other")))
    async with store_of(graph.write_dsn, "postgres") as store:
        with pytest.raises(SchemaMismatch, match=told):
            await adopt(store, "shop", shop)


async def test_adopter_is_no_superuser_but_may_become_the_owner(
    graph: TestGraph, postgres_admin: Callable[[str], object]
) -> None:
    async with store_of(graph.write_dsn, ADOPTER) as store:
        with pytest.raises(SchemaMismatch, match=f"acts as '{ALICE}'"):
            await adopt(store, "alice", SchemaMap(name="items", tables=(_wider(),)))
        postgres_admin(f"GRANT {ALICE} TO {ADOPTER}")
        try:
            assert await undo(store, "alice", ITEMS)
            assert await adopt(store, "alice", ITEMS)
        finally:
            postgres_admin(f"REVOKE {ALICE} FROM {ADOPTER}")
    async with connected(graph.write_dsn, ALICE) as alice:
        owners = await alice.fetch(
            "SELECT proowner::regrole::text AS owner FROM pg_proc WHERE pronamespace = 'alice'::regnamespace"
            " UNION SELECT relowner::regrole::text FROM pg_class WHERE relnamespace = 'alice'::regnamespace"
        )
    assert [row["owner"] for row in owners] == [ALICE]


def _wider() -> TableMap:
    return TableMap(name="items", source="item", columns=(Column(name="title"),))


async def test_adoption_of_an_earlier_release_is_handed_over_without_another_epoch(graph: TestGraph) -> None:
    """As release 0.1 left it: made by a superuser, stamped by one function for all."""
    superuser = await graph.connect_write()
    await superuser.execute(
        "CREATE FUNCTION syncline.capture_version() RETURNS trigger LANGUAGE plpgsql AS $$\n"
        "BEGIN\n    NEW.sync_xid := pg_current_xact_id();\n    RETURN NEW;\nEND\n$$;"
        "DROP TRIGGER capture_version ON alice.item; DROP TRIGGER capture_update ON alice.item;"
        "CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON alice.item "
        "FOR EACH ROW EXECUTE FUNCTION syncline.capture_version(); DROP FUNCTION alice.capture_version();"
        "ALTER FUNCTION alice.sync_tombstone_item() OWNER TO postgres;"
        "ALTER FUNCTION alice.sync_notify() OWNER TO postgres;"
        "ALTER TABLE alice.sync_tombstone OWNER TO postgres; ALTER TABLE alice.sync_notify OWNER TO postgres"
    )
    epoch = await superuser.fetchval("SELECT 'alice.sync_tombstone'::regclass::oid")
    async with store_of(graph.write_dsn, "postgres") as store:
        before, slower = await check_capture("write-db", store, {"alice": "alice", "kg": "kg"})
        assert "earlier release" in slower.found
        assert (before.status, "alice (as postgres" in before.found) == (CheckStatus.WARN, True)
        steps = await adopt(store, "alice", ITEMS)
        assert "Transfer the capture objects of alice" in steps[0].sentence
        assert await adopt(store, "alice", ITEMS) == []
        [after] = await check_capture("write-db", store, {"alice": "alice", "kg": "kg"})
        assert after.status is CheckStatus.OK
    assert await superuser.fetchval("SELECT 'alice.sync_tombstone'::regclass::oid") == epoch
    await superuser.close()


# The lock, and what doctor says


async def test_holder_of_the_lock_is_named_by_the_result_and_by_doctor(graph: TestGraph) -> None:
    thief = await asyncpg.connect(
        as_role(graph.target_dsn, MALLORY), server_settings={"application_name": "reports"}
    )
    try:
        await thief.execute("SELECT pg_advisory_lock_shared(hashtextextended('syncline:kg', 0))")
        result = await run_cycle(graph.context())
        assert result.status is CycleStatus.ALREADY_RUNNING
        holder = result.holder
        assert holder is not None
        found = (holder.pid, holder.role, holder.application_name)
        assert found == (thief.get_server_pid(), MALLORY, "reports")
        assert holder.since is not None
        [check] = await check_locks("graph-db", graph.target, {"kg": "world"})
        assert check.status is CheckStatus.WARN
        assert f"world by pid {thief.get_server_pid()}, role {MALLORY} (application reports)" in check.found
    finally:
        await thief.close()
    assert (await run_cycle(graph.context())).holder is None


async def test_doctor_warns_of_a_role_with_more_than_grants(
    graph: TestGraph, postgres_admin: Callable[[str], object]
) -> None:
    async def look(role: str) -> tuple[CheckStatus, str]:
        async with store_of(graph.write_dsn, role) as store:
            [check] = await check_role("write-db", store, setting="SYNCLINE_WRITE_DSN")
            return check.status, check.found

    assert (await look(WORKER))[0] is CheckStatus.OK
    assert "SUPERUSER" in (await look("postgres"))[1]
    for attribute in ("CREATEROLE", "BYPASSRLS"):
        postgres_admin(f"ALTER ROLE {WORKER} {attribute}")
        try:
            status, found = await look(WORKER)
            assert (status, attribute in found) == (CheckStatus.WARN, True)
        finally:
            postgres_admin(f"ALTER ROLE {WORKER} NO{attribute}")


async def test_doctor_warns_of_who_may_create_in_a_schema_of_the_graph_db(graph: TestGraph) -> None:
    assert (await check_schemas("graph-db", graph.target, {"kg": "kg"}))[0].status is CheckStatus.OK
    connection = await graph.connect_target()
    await connection.execute(f"GRANT CREATE ON SCHEMA kg TO {MALLORY}")
    await connection.close()
    [check] = await check_schemas("graph-db", graph.target, {"kg": "kg"})
    assert (check.status, MALLORY in check.found) == (CheckStatus.WARN, True)


async def test_another_epoch_keeps_who_may_read_the_deleted_keys(graph: TestGraph) -> None:
    await attack(graph, "DROP TRIGGER capture_delete ON kg.write_nodes")
    superuser = await graph.connect_write()
    before = await superuser.fetchval(
        "SELECT relacl::text FROM pg_class WHERE oid = 'sync_tombstone'::regclass"
    )
    async with store_of(graph.write_dsn, "postgres") as store:
        assert await adopt(store, "kg", KNOWLEDGE_GRAPH)
    after = await superuser.fetchval(
        "SELECT relacl::text FROM pg_class WHERE oid = 'sync_tombstone'::regclass"
    )
    await superuser.close()
    assert WORKER in before
    assert after == before
