"""Roles with exactly the rights that `syncline grants` prints: all that a worker does works, and no more."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
import structlog
from pydantic import SecretStr

from providers import BUILTIN
from syncline.capture.listen.connection import ListenConnection
from syncline.control.audit import Actor
from syncline.control.embedding_record import record_of
from syncline.control.graphs import Graph, GraphChanges, GraphDraft
from syncline.control.services import Services
from syncline.engine import KNOWLEDGE_GRAPH, position, source_check
from syncline.errors import RebuildRefused, StoreRejected
from syncline.messages.rebuild import ChangeRebuildInput, RebuildAction, RebuildStatus
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.operator.dead_letters import Selection, list_dead_letters, retry
from syncline.operator.embedding_change import drop, start, switch
from syncline.operator.health.rights import check_rights, needed_rights
from syncline.operator.maps import map_of
from syncline.operator.rebuild import change_rebuild
from syncline.provider import CycleBudget, NoOptions, RunIdentity, SyncContext
from syncline.registry import Registry
from syncline.rights.databases import Places, Roles, grants, places_of
from syncline.rights.missing import missing_rights
from syncline.rights.needed import Place, worker_graph_rights
from syncline.settings import Settings
from syncline.shadow.prepare import drop_shadow, prepare_shadow
from syncline.shadow.promote import promote
from syncline.sql import quoted
from syncline.stores.tenants import write_guard
from syncline.testing.providers import FakeProvider
from syncline.verify import verify
from tests.kit.databases import execute

_numbers = count(1)
ANYWAY = {"switch": {"anyway": True}}
SEED = """
INSERT INTO write_raw_sources (id, uri, title) VALUES ('r1', 'https://example.org', 'One');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'ready');
INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r1');
INSERT INTO write_nodes (id, concept, definition, parent_id, fact_ids)
    VALUES ('n1', 'Child', 'a child', 'n2', '{f1,f2}'), ('n2', 'Parent', 'a parent', NULL, '{f2}'),
           ('n3', 'Waits', 'for nobody', 'n9', '{f9}'), ('n4', 'Poison', 'is refused', NULL, '{}');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)
    VALUES ('e1', 'n1', 'n2', 'child_of', '{f1}'), ('e2', 'n1', 'n9', 'waits', '{f1}');
INSERT INTO write_node_fact_rejections (node_id, fact_id) VALUES ('n1', 'f2');
"""


@dataclass(frozen=True)
class Site:
    """A write-db and a graph-db of their own, where nobody has a right but by `syncline grants`."""

    write: str
    graph: str
    roles: Roles
    folder: Path

    def settings(self, role: str, **more: object) -> Settings:
        def of(dsn: str) -> SecretStr:
            return SecretStr(dsn.replace("postgres@", f"{role}@"))

        given = {"write_dsn": of(self.write), "graph_dsn": of(self.graph), "qdrant_path": self.folder}
        return Settings.model_validate({"embedding_dimensions": 8, **given, **more})

    @asynccontextmanager
    async def services(self, role: str | None, **more: object) -> AsyncIterator[Services]:
        registry = Registry()
        registry.load(BUILTIN)
        settings = self.settings(role or "postgres", **more)
        async with Services.open(settings, registry=registry) as services:
            yield services

    async def grant(self, places: Places) -> None:
        """Run what is printed, as an administrator does."""
        dsns = {"write-db": self.write, "graph-db": self.graph, "control plane": self.graph}
        for database in grants(self.roles, places):
            await execute(dsns[database.name], database.sql)

    async def write_as(self, role: str | None, sql: str) -> None:
        dsn = self.write.replace("postgres@", f"{role}@")
        await execute(dsn, f"SET search_path = kg; {sql}")


@pytest.fixture
def site(new_database: Callable[..., str], postgres_admin: Callable[[str], object], tmp_path: Path) -> Site:
    number = next(_numbers)
    plain = [f"{kind}_{number}" for kind in ("worker", "writer", "owner", "reader")]
    for name in plain:
        postgres_admin(f"CREATE ROLE {quoted(name)} LOGIN")
    worker, writer, owner, reader = plain
    roles = Roles(worker=worker, writer=writer, owner=owner, reader=reader)
    return Site(write=new_database(), graph=new_database(), roles=roles, folder=tmp_path)


@pytest_asyncio.fixture(loop_scope="session")
async def migrated(site: Site) -> AsyncIterator[Site]:
    """With graph `kg`, migrated by the owner, whose rights are in force."""
    for dsn in (site.write, site.graph):
        await execute(
            dsn,
            "DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); END $$;"
            "REVOKE ALL ON FUNCTION pg_control_system(), pg_control_checkpoint() FROM PUBLIC",
        )
    await site.grant(Places(write={None: [Place(schema="kg")]}, graph={None: [Place(schema="kg")]}))
    async with site.services(site.roles.owner) as services:
        await services.prepare_control()
        graph = await services.graphs.add(GraphDraft(slug="kg"), prepare=services.prepare_graph)
    await execute(
        site.graph,
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA syncline FROM PUBLIC;"
        "ALTER TABLE kg.nodes ADD CONSTRAINT no_poison CHECK (concept <> 'Poison')",
    )
    await site.grant(places_of([graph]))
    yield site
    for dsn in (site.write, site.graph):
        everybody = ", ".join(
            quoted(role)
            for role in (site.roles.worker, site.roles.writer, site.roles.owner, site.roles.reader)
            if role is not None
        )
        await execute(dsn, f"DROP OWNED BY {everybody} CASCADE")


async def cycle(services: Services, *, shadow: bool = False) -> SyncResult:
    graph = await services.graphs.get("kg")
    provider = await services.registry.initialized("sync", "default", services)
    return await provider.sync_cycle(
        SyncContext(
            graph=graph.shadow_ref if shadow else graph.ref,
            run=RunIdentity(workflow_id="w", run_id=str(uuid4())),
            write=services.write_schema(graph),
            target=services.target_schema(graph, shadow=shadow),
            vectors=services.graph_vectors(graph, shadow=shadow),
            embedding=services.embedding,
            budget=CycleBudget(batch_rows=1000, seconds=60),
            options=NoOptions(),
            heartbeat=lambda _: None,
            log=structlog.get_logger(),
            meter=services.meter,
            shadow=shadow,
        )
    )


async def test_a_worker_with_the_printed_rights_does_all_that_workers_do(migrated: Site) -> None:
    site = migrated
    await site.write_as(site.roles.writer, SEED)
    async with site.services(site.roles.worker) as services:
        graph = await services.graphs.get("kg")
        target, write = services.target_schema(graph), services.write_schema(graph)
        result = await cycle(services)
        assert result.status is CycleStatus.DRAINED
        assert {table.table for table in result.tables if table.dead_letters} == {"nodes"}
        await site.write_as(
            site.roles.writer,
            "UPDATE write_nodes SET concept = 'Cured' WHERE id = 'n4'; DELETE FROM write_edges WHERE id = 'e2';"
            "DELETE FROM write_node_fact_rejections; INSERT INTO write_facts (id, content, dedup_status)"
            " VALUES ('f9', 'nine', 'ready')",
        )
        assert (await cycle(services)).status is CycleStatus.DRAINED
        assert (await list_dead_letters(target)).letters == ()
        await retry(target, Selection(everything=True), by=Actor(who="w", why="y"))
        found = await verify(
            KNOWLEDGE_GRAPH,
            write=write,
            target=target,
            vectors=services.graph_vectors(graph),
            embedding=services.embedding.name,
            repair=True,
            who="w",
            why="y",
        )
        assert [relation for relation in found.relations if relation.damaged] == []
        assert (await cycle(services)).status is CycleStatus.DRAINED
        async with write.store.alone("listener") as connection:
            line = ListenConnection(connection, "name")
            assert await line.problem() is None
            assert await line.take()
            assert (await line.want({"kg": True})).problem is None
            await line.renew(1)
            await line.throttle("kg", 60)
        muted = "SELECT last_value > extract(epoch FROM clock_timestamp()) * 1000 FROM kg.sync_quiet"
        await site.write_as(site.roles.owner, f"DO $$ BEGIN ASSERT ({muted}); END $$")
        for role, store, control in (("write", write.store, False), ("graph", target.store, True)):
            needed = needed_rights(role, [graph], control=control)  # type: ignore[arg-type]
            assert (await check_rights(role, store, needed)).status == "ok"


async def test_cycle_leaves_one_token_where_the_timeline_is_not_told(
    migrated: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a role that may not ask, nor a server that does not answer, is asked again in each cycle."""
    site, asked = migrated, list[str]()
    written, refuses = position._written, False

    async def counted(*arguments: Any, file: str, **options: Any) -> object:
        asked.append(file)
        if file and refuses:
            raise asyncpg.FeatureNotSupportedError
        return await written(*arguments, file=file, **options)

    monkeypatch.setattr(position, "_written", counted)
    monkeypatch.setattr(source_check, "SECONDS", 0.0)
    await site.write_as(site.roles.writer, SEED)
    function = "FUNCTION pg_catalog.pg_walfile_name(pg_lsn)"

    async def cycles() -> list[bool]:
        asked.clear()
        async with site.services(site.roles.worker) as services:
            for number in range(3):
                await site.write_as(site.roles.writer, f"UPDATE write_nodes SET definition = '{number}'")
                assert (await cycle(services)).status is CycleStatus.DRAINED
        return [bool(file) for file in asked]

    await execute(site.write, f"REVOKE EXECUTE ON {function} FROM PUBLIC")
    # What tells of a crash may be forbidden too.
    await execute(site.write, "REVOKE EXECUTE ON FUNCTION pg_stat_get_bgwriter_stat_reset_time() FROM PUBLIC")
    assert await cycles() == [False, False, False]
    await execute(site.write, f"GRANT EXECUTE ON {function} TO PUBLIC")
    assert await cycles() == [True, True, True]
    refuses = True
    assert await cycles() == [True, False, False, False]


async def test_a_worker_with_the_printed_rights_changes_an_embedding_and_drops_the_one_before(
    migrated: Site,
) -> None:
    await migrated.write_as(migrated.roles.writer, SEED)
    second = {"second_embedding": "development", "second_embedding_dimensions": 16}
    actor = Actor(who="w", why="y", run_id="r")
    async with migrated.services(migrated.roles.worker, **second) as services:
        graph = await services.graphs.get("kg")
        first = record_of(services.embedding, services.vector_store(None))
        await services.embedding_records.claim(graph.id, [first], made_by=())
        await cycle(services)
        for verb in (start, switch, drop):
            async for _ in verb(
                services, graph, KNOWLEDGE_GRAPH, actor=actor, **ANYWAY.get(verb.__name__, {})
            ):
                pass
        assert list(await services.embedding_records.of_graph(graph.id)) == [2]


async def test_nobody_has_more_rights_than_those(migrated: Site) -> None:
    site = migrated
    await site.write_as(site.roles.writer, SEED)
    refused = (asyncpg.InsufficientPrivilegeError,)
    for sql in ("SELECT FROM sync_tombstone", "UPDATE sync_notify SET wanted = false", "CREATE TABLE t ()"):
        with pytest.raises(refused):
            await site.write_as(site.roles.writer, sql)
        if "CREATE" in sql:
            with pytest.raises(refused):
                await site.write_as(site.roles.worker, sql)
    for sql in (
        "DELETE FROM write_nodes",
        "INSERT INTO sync_tombstone (source_table, key) VALUES ('a', '{b}')",
    ):
        with pytest.raises(refused):
            await site.write_as(site.roles.worker, sql)
    reader = site.graph.replace("postgres@", f"{site.roles.reader}@")
    await execute(reader, "SELECT FROM kg.nodes")
    for sql in ("SELECT FROM kg.sync_dead_letter", "DELETE FROM kg.nodes", "SELECT FROM syncline.graphs"):
        with pytest.raises(refused):
            await execute(reader, sql)
    # A graph cannot be added by who may not make schemas, and that is told as what it is.
    async with site.services(site.roles.worker) as services:
        with pytest.raises(StoreRejected, match="permission denied for database"):
            await services.graphs.add(GraphDraft(slug="other"), prepare=services.prepare_graph)


@pytest.mark.long(after=1)
@pytest.mark.parametrize("role", ["write", "graph"])
async def test_doctor_names_the_very_grant_of_each_right_that_is_missing(migrated: Site, role: str) -> None:
    site = migrated
    dsn = {"write": site.write, "graph": site.graph}[role]
    administrator = await asyncpg.connect(dsn)
    async with site.services(site.roles.worker) as services:
        graph = await services.graphs.get("kg")
        store = services.store(role, None)  # type: ignore[arg-type]

        async def look() -> tuple[str, str | None]:
            needed = needed_rights(role, [graph], control=role == "graph")  # type: ignore[arg-type]
            check = await check_rights("rights", store, needed)
            return check.status, check.fix

        assert await look() == ("ok", None)
        for grant in await _all_grants(site, role, administrator, graph):
            if "CONNECT" in grant:
                continue
            await administrator.execute(grant.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "))
            status, fix = await look()
            assert status == "fail", grant
            assert fix is not None
            assert f": {grant}; `syncline grants`" in fix
            await administrator.execute(grant)
        assert await look() == ("ok", None)
    await administrator.close()


async def _all_grants(
    site: Site, role: str, administrator: asyncpg.Connection, graph: Graph
) -> Sequence[str]:
    """Return each GRANT that a role with no rights at all would be told."""
    name = f"nobody_{next(_numbers)}"
    await administrator.execute(f"CREATE ROLE {name}; SET ROLE {name}")
    needed = needed_rights(role, [graph], control=role == "graph")  # type: ignore[arg-type]
    found = [
        right.grant.replace(quoted(name), quoted(site.roles.worker))
        for right in await missing_rights(administrator, needed)
    ]
    await administrator.execute(f"RESET ROLE; DROP ROLE {name}")
    assert len(found) > 15
    return found


@pytest.mark.long("test_a_worker_with_the_printed_rights_does_all_that_workers_do")
async def test_a_worker_that_acts_as_the_owner_adds_graphs_makes_shadows_and_promotes_them(
    migrated: Site,
) -> None:
    site = migrated
    roles = site.roles
    creating = Roles(worker=roles.worker, writer=roles.writer, owner=roles.owner, creates=True)
    site = Site(write=site.write, graph=site.graph, roles=creating, folder=site.folder)
    await site.write_as(roles.writer, SEED)
    async with site.services(roles.worker) as services:
        shadowed = await services.graphs.update(
            "kg", GraphChanges(composition={"sync": {"provider": "default"}, "shadow": {"provider": "acme"}})
        )
        store = services.store("graph", None)
        needed = needed_rights("graph", [shadowed], control=True)
        check = await check_rights("rights", store, needed, shadowed=[shadowed])
        assert check.status == "fail"
        assert f"GRANT {roles.owner} TO {roles.worker}" in (check.fix or "").replace('"', "")
    await site.grant(places_of([shadowed]))
    async with site.services(roles.worker, owner_role=roles.owner) as services:
        services.registry.register("sync", FakeProvider("acme"), "acme 1.0")
        store = services.store("graph", None)
        needed = needed_rights("graph", [shadowed], control=True)
        assert (await check_rights("rights", store, needed, shadowed=[shadowed])).found.endswith("needs")
        assert (await cycle(services)).drained
        await prepare_shadow(services, shadowed, "acme")
        assert (await cycle(services, shadow=True)).drained
        await promote(services, shadowed, KNOWLEDGE_GRAPH, actor=Actor(who="w", why="y", run_id="1"))
        assert (await cycle(services)).drained
        await drop_shadow(services, await services.graphs.get("kg"), KNOWLEDGE_GRAPH)
        other = await services.graphs.add(GraphDraft(slug="other"), prepare=services.prepare_graph)
        for role, name in (("write", "write"), ("graph", "graph")):
            store = services.store(role, None)  # type: ignore[arg-type]
            check = await check_rights(name, store, needed_rights(role, [shadowed, other]))  # type: ignore[arg-type]
            assert check.status == "ok", check.fix
    # What the worker has made is the owner's, who goes on migrating it.
    async with site.services(roles.owner) as services:
        assert await services.prepare_graph(other) == []
        owners = await _owners(site.graph)
        assert owners == {roles.owner}


class _Runs:
    """Cycles of the shadow, where a worker would start runs."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def start(self) -> None:
        if (await self._services.graphs.get("kg")).shadowed:
            await cycle(self._services, shadow=True)

    async def stop(self) -> None:
        """Do nothing: none is open."""


@pytest.mark.long("test_a_worker_with_the_printed_rights_does_all_that_workers_do")
async def test_a_worker_that_acts_as_the_owner_rebuilds_a_graph(migrated: Site) -> None:
    roles = migrated.roles
    creating = Roles(worker=roles.worker, writer=roles.writer, owner=roles.owner, creates=True)
    site = Site(write=migrated.write, graph=migrated.graph, roles=creating, folder=migrated.folder)
    await site.write_as(roles.writer, SEED)
    async with site.services(roles.worker) as services:
        graph = await services.graphs.get("kg")
    await site.grant(places_of([graph]))
    titles = "CREATE VIEW kg.titles AS SELECT key FROM kg.nodes; CREATE INDEX mine ON kg.nodes (concept)"
    await execute(site.graph, f"{titles}; ALTER VIEW kg.titles OWNER TO {roles.writer}")
    async with site.services(roles.worker, owner_role=roles.owner) as services:
        runs = _Runs(services)
        assert (await cycle(services)).drained

        async def do(action: RebuildAction) -> RebuildStatus:
            graph = await services.graphs.get("kg")
            request = ChangeRebuildInput(graph="kg", action=action)
            actor = Actor(who="w", why="y", run_id=str(uuid4()))
            known = await map_of(services, graph)
            return await change_rebuild(services, graph, known, request, actor=actor, runs=runs)

        with pytest.raises(RebuildRefused, match=f"view 'kg.titles' belongs to role '{roles.writer}'"):
            await do("start")
        await execute(site.graph, f"GRANT {roles.writer} TO {roles.owner}")
        verbs: dict[RebuildAction, str] = {"start": "ready", "switch": "switched", "rollback": "ready"}
        for action, state in [*verbs.items(), ("switch", "switched"), ("drop", "none")]:
            found = await do(action)
            assert (found.state, found.behind) == (state, ()), found
            assert (await cycle(services)).drained
            await runs.start()
    assert await _owners(site.graph) == {roles.owner, roles.writer}


async def _owners(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = relnamespace WHERE nspname IN ('kg', 'kg_shadow', 'other', 'syncline')"
        )
        return {row["owner"] for row in rows}
    finally:
        await connection.close()


def test_names_of_roles_and_schemas_are_quoted_wherever_they_stand() -> None:
    evil = Roles(
        worker='w"; DROP TABLE t; --', writer="$syncline$'", owner="o\\'", reader="r\n-- x", creates=True
    )
    place = Place(schema="s\"'$syncline$", tables=("t'",))
    for database in grants(evil, Places(write={None: [place]}, graph={None: [place]})):
        assert "$syncline1$" in database.sql or database.name == "control plane"
        assert "E'o\\\\'''" in database.sql


async def test_what_is_printed_for_the_oddest_names_is_what_postgres_takes(
    new_database: Callable[..., str], postgres_admin: Callable[[str], object]
) -> None:
    dsn = new_database()
    number = next(_numbers)
    names = [f"{odd}{number}" for odd in ('w"; DROP TABLE t; --', "$syncline$'", "o\\' %s %I", "r\n-- x")]
    for name in names:
        postgres_admin(f"CREATE ROLE {quoted(name)}")
    worker, writer, owner, reader = names
    roles = Roles(worker=worker, writer=writer, owner=owner, reader=reader, creates=True)
    place = Place(schema="s\"'$syncline$\\")
    for _ in range(2):
        for standard in ("on", "off"):
            for database in grants(roles, Places(write={None: [place]}, graph={None: [place]})):
                await execute(
                    dsn,
                    f"SET standard_conforming_strings = {standard}; SET escape_string_warning = off; {database.sql}",
                )
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"SET ROLE {quoted(worker)}")
    missing = await missing_rights(connection, worker_graph_rights([place]))
    assert [str(right) for right in missing] == []
    await connection.execute(f"RESET ROLE; DROP OWNED BY {', '.join(map(quoted, names))} CASCADE")
    await connection.close()


@pytest.mark.long("test_a_worker_with_the_printed_rights_does_all_that_workers_do")
async def test_a_schema_that_may_not_be_seen_is_told_from_one_that_is_not_there(migrated: Site) -> None:
    site = migrated
    await site.write_as(site.roles.writer, SEED)
    worker = quoted(site.roles.worker)
    for dsn in (site.write, site.graph):
        await execute(dsn, f"REVOKE USAGE ON SCHEMA kg FROM {worker}")
        async with site.services(site.roles.worker) as services:
            with pytest.raises(StoreRejected, match="permission denied for schema kg"):
                await cycle(services)
        await execute(dsn, f"GRANT USAGE ON SCHEMA kg TO {worker}")
    async with site.services(site.roles.worker) as services:
        assert (await cycle(services)).status is CycleStatus.DRAINED
    await execute(site.write, f"REVOKE USAGE ON SCHEMA syncline FROM PUBLIC, {worker}")
    async with site.services(site.roles.worker) as services:
        store = services.store("write", None)
        with pytest.raises(StoreRejected, match="permission denied for schema syncline"):
            async with store.alone("listener") as connection:
                await ListenConnection(connection, "name").problem()


async def test_an_owner_makes_a_graph_in_public_and_the_worker_writes_there(site: Site) -> None:
    """From PostgreSQL 15 on, nobody may create there, and it belongs to pg_database_owner."""
    here = Places(write={None: [Place(schema="public")]}, graph={None: [Place(schema="public")]})
    await site.grant(here)
    owner, worker = (
        site.write.replace("postgres@", f"{role}@") for role in (site.roles.owner, site.roles.worker)
    )
    await execute(owner, "CREATE TABLE public.sync_position (one boolean)")
    await execute(site.write, f"GRANT ALL ON public.sync_position TO {quoted(site.roles.worker)}")
    await execute(worker, f"BEGIN; {write_guard(['public.sync_position'])}; COMMIT")
