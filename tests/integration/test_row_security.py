"""Row level security: rows that a role may not see are not taken for deleted, on either side."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio
from pydantic import SecretStr

from syncline.capture.install.install import plan_adoption
from syncline.engine import KNOWLEDGE_GRAPH, SyncEngine, run_cycle
from syncline.errors import SchemaMismatch
from syncline.messages.sync import CycleStatus, SyncResult
from syncline.messages.verification import RelationKind, Verification
from syncline.operator.health.rights import check_policies, check_positions
from syncline.provider import GraphSchema, SyncContext
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, on_target, read, write
from syncline.verify import verify

SEED = """
INSERT INTO write_nodes (id, concept, fact_ids) VALUES ('n1', 'one', '{f1}'), ('n2', 'two', '{}');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready');
"""
_GRANTS = (
    "GRANT USAGE ON SCHEMA kg, syncline TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA kg TO {role};"
    "GRANT ALL ON ALL SEQUENCES IN SCHEMA kg TO {role}"
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A graph that was synced, and a role of little rights that goes on with it."""

    graph: TestGraph
    write: PostgresStore
    target: PostgresStore
    role: str
    engine: SyncEngine

    def context(self) -> SyncContext:
        return replace(
            self.graph.context(),
            write=GraphSchema(store=self.write, schema="kg"),
            target=GraphSchema(store=self.target, schema="kg"),
        )

    async def cycle(self) -> SyncResult:
        # Of its own, as a worker has: what another role was seen to be able to is not this one's.
        return await self.engine.run_cycle(self.context())

    async def repaired(self) -> Verification:
        context = self.context()
        return await verify(
            KNOWLEDGE_GRAPH,
            write=context.write,
            target=context.target,
            vectors=context.vectors,
            embedding=context.embedding.name,
            repair=True,
            who="t",
            why="t",
        )

    async def nodes(self) -> list[str]:
        return [row["key"] for row in await read(self.graph, "SELECT key FROM nodes ORDER BY key")]

    def tells(self, sentence: str | None, table: str) -> bool:
        """Whether a sentence names table, role and a way out."""
        return sentence is not None and all(
            part in sentence for part in (table, self.role, "BYPASSRLS", "DISABLE ROW LEVEL SECURITY")
        )


@pytest_asyncio.fixture(loop_scope="session")
async def site(graph: TestGraph, postgres_admin: Callable[[str], object]) -> AsyncIterator[Site]:
    role = f"worker_{graph.write_dsn.split('/')[3].split('?')[0]}"
    postgres_admin(f"CREATE ROLE {role} LOGIN")
    await write(graph, SEED)
    assert (await run_cycle(graph.context())).status is CycleStatus.DRAINED
    await write(graph, _GRANTS.format(role=role))
    await on_target(graph, _GRANTS.format(role=role))
    stores = [
        PostgresStore(
            name, SecretStr(dsn.replace("postgres@", f"{role}@")), pool_size=4, application_name="t"
        )
        for name, dsn in (("write", graph.write_dsn), ("graph", graph.target_dsn))
    ]
    yield Site(graph=graph, write=stores[0], target=stores[1], role=role, engine=SyncEngine(KNOWLEDGE_GRAPH))
    for store in stores:
        await store.close()
    await write(graph, f"DROP OWNED BY {role}")
    await on_target(graph, f"DROP OWNED BY {role}")
    postgres_admin(f"DROP ROLE {role}")


_POLICY = (
    "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY hidden ON {table} USING (id::text <> 'n1')"
)


async def test_rows_that_a_policy_hides_stay(site: Site) -> None:
    await site.cycle()
    await write(site.graph, _POLICY.format(table="write_nodes"))
    await write(
        site.graph, "INSERT INTO write_facts (id, content, dedup_status) VALUES ('f2', 'two', 'ready')"
    )
    # As after a verification, or a retry: the row is asked for by key.
    await on_target(
        site.graph,
        "INSERT INTO sync_requeue (table_name, row_id, key, reason) SELECT 'nodes', id, ARRAY[key], 'verify' FROM nodes",
    )
    result = await site.cycle()
    assert result.status is CycleStatus.FAILED
    errors = {table.table: table.error for table in result.tables if table.error}
    assert errors.keys() == {"nodes"}
    assert site.tells(errors["nodes"], "kg.write_nodes")
    assert await site.nodes() == ["n1", "n2"]
    assert [row["key"] for row in await read(site.graph, "SELECT key FROM facts ORDER BY key")] == [
        "f1",
        "f2",
    ]
    await write(site.graph, "ALTER TABLE write_nodes DISABLE ROW LEVEL SECURITY")
    assert (await site.cycle()).status is CycleStatus.DRAINED


async def test_a_repair_does_not_follow_from_a_filtered_read(site: Site) -> None:
    await write(site.graph, _POLICY.format(table="write_nodes"))
    found = await site.repaired()
    [nodes] = [each for each in found.relations if (each.name, each.kind) == ("nodes", RelationKind.ROWS)]
    assert "row-level security" in (nodes.problem or "")
    assert not found.equal
    assert await read(site.graph, "SELECT * FROM sync_requeue") == []
    await site.cycle()
    assert await site.nodes() == ["n1", "n2"]


async def test_a_delete_that_a_policy_would_swallow_is_refused(site: Site) -> None:
    await site.cycle()
    await on_target(
        site.graph,
        "ALTER TABLE nodes ENABLE ROW LEVEL SECURITY; CREATE POLICY hidden ON nodes USING (key <> 'n1')",
    )
    await write(site.graph, "DELETE FROM write_nodes WHERE id = 'n1'")
    result = await site.cycle()
    assert result.status is CycleStatus.FAILED
    await on_target(site.graph, "ALTER TABLE nodes DISABLE ROW LEVEL SECURITY")
    await site.cycle()
    assert await site.nodes() == ["n2"]


_OPEN = "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY everything ON {table} USING (true)"


@pytest.mark.long(after=1)
@pytest.mark.parametrize("table", ["sync_tombstone", "sync_requeue", "sync_cursor"])
async def test_what_the_engine_keeps_is_no_part_of_the_truth(site: Site, table: str) -> None:
    await site.cycle()
    await (write if table == "sync_tombstone" else on_target)(site.graph, _OPEN.format(table=table))
    with pytest.raises(SchemaMismatch) as refused:
        await site.cycle()
    assert site.tells(str(refused.value), f"kg.{table}")


@pytest.mark.long(after=1)
@pytest.mark.parametrize("table", ["nodes", "node_facts", "node_stats"])
async def test_each_table_of_the_graph_db_is_looked_at(site: Site, table: str) -> None:
    await on_target(site.graph, _OPEN.format(table=table))
    result = await site.cycle()
    assert result.status is CycleStatus.FAILED
    assert any(site.tells(each.error, f"kg.{table}") for each in result.tables)


@pytest.mark.long("test_rows_that_a_policy_hides_stay")
async def test_an_owner_under_force(site: Site) -> None:
    await write(
        site.graph,
        f"ALTER TABLE write_nodes OWNER TO {site.role}; ALTER TABLE write_nodes ENABLE ROW LEVEL SECURITY",
    )
    assert (await site.cycle()).status is CycleStatus.DRAINED
    await write(site.graph, "ALTER TABLE write_nodes FORCE ROW LEVEL SECURITY")
    assert (await site.cycle()).status is CycleStatus.FAILED
    await write(site.graph, f"ALTER ROLE {site.role} BYPASSRLS")
    assert (await site.cycle()).status is CycleStatus.DRAINED
    assert await site.nodes() == ["n1", "n2"]


async def test_adoption_names_table_role_and_way_out(site: Site) -> None:
    await write(site.graph, _POLICY.format(table="write_nodes"))
    async with site.write.driver() as connection:
        with pytest.raises(SchemaMismatch) as refused:
            await plan_adoption(connection, "kg", KNOWLEDGE_GRAPH)
    assert site.tells(str(refused.value), "kg.write_nodes")


async def test_doctor_names_the_same_on_both_sides(site: Site) -> None:
    [well] = await check_policies("p", site.write, ["kg"], target=False)
    assert well.status == "ok"
    await write(site.graph, _POLICY.format(table="write_nodes"))
    await on_target(site.graph, _OPEN.format(table="node_facts"))
    for store, table, target in ((site.write, "kg.write_nodes", False), (site.target, "kg.node_facts", True)):
        [check] = await check_policies("p", store, ["kg"], target=target)
        assert check.status == "fail"
        assert table in check.found
        assert site.tells(check.fix, table)


@pytest.mark.long("test_doctor_names_the_same_on_both_sides")
async def test_doctor_says_whether_another_past_would_be_noticed(site: Site) -> None:
    [check] = await check_positions("p", site.write, ["kg"])
    assert check.status == "ok"
    await write(site.graph, f"REVOKE UPDATE ON sync_position FROM {site.role}")
    [check] = await check_positions("p", site.write, ["kg"])
    assert check.status == "warn"
    assert site.role in (check.fix or "")
    assert (await site.cycle()).unknown
    assert site.role in (await site.cycle()).unknown[0]
