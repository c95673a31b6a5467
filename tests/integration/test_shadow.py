"""Shadows: beside the live graph and never in it; compared with it, promoted, and promoted back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline import migrations, names
from syncline.control.audit import Actor
from syncline.control.graphs import Graph, GraphDraft
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import KNOWLEDGE_GRAPH, SchemaMap
from syncline.engine.render import statements as rendered
from syncline.errors import GraphInvalid, InputInvalid, SchemaMoved, ShadowInvalid
from syncline.maps.ids import Id, IdRule
from syncline.maps.table_map import Ownership
from syncline.messages.operator import Promotion
from syncline.messages.sync import CycleStatus, SyncEvent, SyncResult
from syncline.messages.verification import RelationKind
from syncline.settings import Settings
from syncline.shadow.comparison import compare_with_shadow
from syncline.shadow.prepare import drop_shadow, prepare_shadow
from syncline.shadow.promote import _Promotion, promote
from syncline.stores.vectors import PointPayload
from syncline.testing.lab import eventually
from tests.kit.later_revision import with_later_revision
from tests.kit.shadow_site import LIVE, LOUD, SEED, SHADOWED, Site, opened_site, shouting


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def templates(
    postgres_server: EmbeddedPostgres, graph_templates: tuple[str, str]
) -> tuple[str, str, str]:
    """Names of the template databases of a write-db with rows, of a graph-db, and of a control plane."""
    named = ("template_shadow_write", "template_shadow_graph", "template_shadow_control")
    for name, template in zip(named, (*graph_templates, graph_templates[1]), strict=True):
        postgres_server.psql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    write, graph, control = (SecretStr(postgres_server.dsn(name)) for name in named)
    for dsn in (graph, control):
        async with opened_site(Settings(write_dsn=write, graph_dsn=graph, control_dsn=dsn)) as site:
            await site.services.prepare_control()
            await site.services.graphs.add(GraphDraft(slug="kg", composition=SHADOWED))
            if dsn is graph:
                await site.write(SEED)
                await prepare_shadow(site.services, await site.graph(), "acme")
    return named


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    templates: tuple[str, str, str], new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[Site]:
    write, target = (SecretStr(new_database(template)) for template in templates[:2])
    async with opened_site(Settings(write_dsn=write, graph_dsn=target, qdrant_path=tmp_path / "q")) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def apart(
    templates: tuple[str, str, str], new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[Site]:
    """The same with a control plane in a database of its own."""
    write, target, control = (SecretStr(new_database(template)) for template in templates)
    path = tmp_path / "q"
    async with opened_site(
        Settings(write_dsn=write, graph_dsn=target, control_dsn=control, qdrant_path=path)
    ) as opened:
        yield opened


async def test_a_shadow_leaves_the_live_graph_and_the_write_db_as_they_are(site: Site) -> None:
    await site.cycle()
    await site.write(
        "DELETE FROM write_edges; UPDATE sync_tombstone SET deleted_at = now() - interval '8 days'"
    )
    settings, events = site.services.settings, list[str]()
    before = await site.bytes_of(settings.graph_dsn, "kg"), await site.bytes_of(settings.write_dsn, "kg")
    points = await site.points()
    async with site.on_target() as listener:
        await listener.add_listener(names.NOTIFY_CHANNEL, lambda *told: events.append(str(told[3])))
        shadow = await site.cycle(shadow=True)
        await site.write("UPDATE write_facts SET content = 'three' WHERE id = 'f2'")
        changed = await site.cycle(shadow=True)
        await listener.fetch("SELECT 1")
    assert (shadow.status, changed.status, changed.rows) == (CycleStatus.DRAINED, CycleStatus.DRAINED, 1)
    assert before[0] == await site.bytes_of(settings.graph_dsn, "kg")
    # Its own position there is all that a shadow writes.
    apart: dict[str, list[str]] = {"write_facts": [], "sync_position": []}
    assert before[1] | apart == await site.bytes_of(settings.write_dsn, "kg") | apart
    assert points == await site.points()
    assert events == []
    assert len(await site.points(shadow=True)) == 4
    assert [row["n"] for row in await site.read("SELECT count(*) AS n FROM nodes", schema="kg_shadow")] == [2]


async def test_a_shadow_makes_no_alias_and_a_promotion_moves_the_one_that_readers_query(site: Site) -> None:
    store = site.services.vector_store(None)
    assert (await site.cycle(shadow=True)).drained
    assert await store.aliases() == {}
    await site.both()
    for prefix in ("kg_", "kg_shadow_", "kg_"):
        found = await store.aliases()
        assert found == {f"kg_{name}.live": f"{prefix}{name}" for name in ("facts", "nodes")}
        await site.promote()


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_deleted_keys_that_the_shadow_has_yet_to_read_are_kept(site: Site) -> None:
    await site.both()
    await site.write(
        "DELETE FROM write_edges; UPDATE sync_tombstone SET deleted_at = now() - interval '8 days'"
    )

    async def kept() -> int:
        rows = await site.bytes_of(site.services.settings.write_dsn, "kg")
        return len(rows["sync_tombstone"])

    assert (await site.cycle()).rows == 1
    assert await kept() == 1
    assert (await site.cycle(shadow=True)).rows == 1
    assert await kept() == 1
    await site.write("DELETE FROM write_fact_sources")
    await site.cycle()
    assert await kept() == 1  # that of the edge has been read by both


async def test_a_faithful_shadow_is_equal(site: Site) -> None:
    await site.both()
    found = await site.compare()
    assert found.equal
    assert (found.behind, found.differences) == ((), ())
    compared = {(relation.name, relation.kind): relation.equal for relation in found.relations}
    assert compared["nodes", RelationKind.ROWS] == 2
    assert compared["node_facts", RelationKind.LINKS] == 3
    assert compared["node_stats", RelationKind.STATS] == 2
    assert compared["facts", RelationKind.VECTORS] == 2


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_further_columns_of_links_are_no_difference(site: Site) -> None:
    """Keys that the database makes, and times of linking, differ from the start; a place follows the source."""
    await site.both()
    for schema, place in (("kg", 1), ("kg_shadow", 2)):
        async with site.on_target(schema) as product:
            await product.execute(
                "ALTER TABLE node_facts ADD linked_at timestamptz DEFAULT clock_timestamp(),"
                f" ADD row_id uuid DEFAULT gen_random_uuid(), ADD place integer DEFAULT {place}"
            )
    assert (await site.compare()).equal
    placed = owned_map(position="place", owned=Ownership.ALL)
    found = await compare_with_shadow(site.services, await site.graph(), placed, vectors=False)
    assert {r.name: r.columns for r in found.relations if r.columns} == {"node_facts": {"place": 3}}


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_promote_tells_of_links_that_others_made(site: Site) -> None:
    await site.both()
    with pytest.raises(ShadowInvalid, match="links that others made in 'node_facts'"):
        await promote(
            site.services,
            await site.graph(),
            owned_map(position=None, owned=Ownership.OURS),
            actor=Actor(who="ann", why="it is better", run_id="r"),
            patience=0.3,
        )


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_promote_tells_of_rows_that_others_have(site: Site) -> None:
    await site.both()
    beside = Id(rule=IdRule.HASH, beside=True)
    tables = (replace(table, id=beside) if table.name == "facts" else table for table in KNOWLEDGE_GRAPH)
    listed = SchemaMap(name="listed", tables=tuple(tables))

    async def promoted() -> Promotion:
        graph = await site.graph()
        return await promote(
            site.services, graph, listed, actor=Actor(who="ann", why="it is better", run_id="r"), patience=0
        )

    # No row is in the list: to this map, all are others'.
    with pytest.raises(ShadowInvalid, match="rows that others have in 'facts'"):
        await promoted()
    async with site.on_target() as product:
        await product.execute(
            "INSERT INTO sync_row (table_name, row_id, key) SELECT 'facts', id, ARRAY[key] FROM facts"
        )
    assert (await promoted()).despite == ()


async def test_promote_tells_of_marked_rows_and_the_comparison_leaves_them_out(site: Site) -> None:
    await site.both()
    tables = (
        replace(table, marked={"content": "'gone'"}) if table.name == "facts" else table
        for table in KNOWLEDGE_GRAPH
    )
    marking = SchemaMap(name="marking", tables=tuple(tables))
    mark = """
        UPDATE facts SET content = $1 WHERE key = 'f2';
        INSERT INTO sync_kept (table_name, row_id, key, target_key)
        SELECT 'facts', id, ARRAY[key], ARRAY[id::text] FROM facts WHERE key = 'f2'
    """

    async def promoted() -> Promotion:
        graph = await site.graph()
        return await promote(
            site.services, graph, marking, actor=Actor(who="ann", why="it is better", run_id="r"), patience=0
        )

    async with site.on_target() as product:
        await product.execute(mark.replace("$1", "'gone today'"))
    with pytest.raises(ShadowInvalid, match="rows that are marked in 'facts'"):
        await promoted()
    async with site.on_target("kg_shadow") as shadow:
        await shadow.execute(mark.replace("$1", "'gone'"))
    found = await compare_with_shadow(
        site.services, await site.graph(), marking, tables=["facts"], vectors=False
    )
    assert found.equal, found
    assert (await promoted()).despite == ()


def owned_map(*, position: str | None, owned: Ownership) -> SchemaMap:
    """The built-in map with other links of nodes."""
    nodes = KNOWLEDGE_GRAPH["nodes"]
    other = replace(nodes, links=(replace(nodes.links[0], position=position, owned=owned),))
    return replace(
        KNOWLEDGE_GRAPH, tables=tuple(other if each is nodes else each for each in KNOWLEDGE_GRAPH.tables)
    )


async def test_what_differs_is_named_by_table_key_and_column(site: Site) -> None:
    site.acme.cycle = shouting
    await site.both()
    found = await site.compare()
    assert found.differences == ("nodes (rows) differ in definition: 2",)
    [nodes] = [relation for relation in found.relations if relation.damaged]
    assert (nodes.kind, sorted(nodes.stale.keys)) == (RelationKind.ROWS, [("n1",), ("n2",)])
    assert not found.equal

    async with site.on_target("kg_shadow") as shadow:
        await shadow.execute("DELETE FROM edges")
        await shadow.execute("DELETE FROM node_facts WHERE fact_id = syncline.key_uuid('f1')")
        await shadow.execute("UPDATE node_stats SET child_count = 7 WHERE child_count = 1")
        await shadow.execute("UPDATE convergence_reports SET convergence_score = 0.7 + 1e-13")
    vectors = site.services.graph_vectors(await site.graph(), shadow=True)
    collection = vectors.collection("facts")
    [first, second] = [point async for page in vectors.store.scroll(collection) for point in page]
    await vectors.store.delete(collection, [first.id])
    await vectors.store.overwrite_payload(
        collection, [PointPayload(second.id, {**second.payload, "fact_type": "guess"})]
    )
    found = await site.compare()
    told = {(relation.name, relation.kind.value): relation for relation in found.relations}
    assert told["edges", "rows"].missing.keys == (("e1",),)
    assert told["node_facts", "links"].missing.keys == (("n1", "f1"),)
    assert told["node_stats", "stats"].stale.keys == (("n2",),)
    assert told["convergence_reports", "rows"].equal == 1  # but for its last digits
    assert told["facts", "vectors"].missing.count == 1
    assert told["facts", "vectors"].columns == {"fact_type": 1}


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_a_side_that_is_behind_is_told(site: Site) -> None:
    await site.unmade()
    with pytest.raises(ShadowInvalid, match="has not run yet"):
        await site.compare()
    await site.both()
    await site.write("INSERT INTO write_nodes (id, concept) VALUES ('n3', 'New'); DELETE FROM write_edges")
    await site.cycle()
    found = await site.compare()
    assert found.behind == ("The shadow result has yet to read nodes, sync_tombstone.",)
    told = {(relation.name, relation.kind.value): relation for relation in found.relations}
    assert (told["nodes", "rows"].missing.count, told["edges", "rows"].extra.count) == (1, 1)
    await site.cycle(shadow=True)
    assert (await site.compare()).behind == ()


async def test_a_promoted_shadow_is_live_and_can_be_promoted_back(site: Site) -> None:
    site.acme.cycle = shouting
    await site.both()
    events: list[str] = []

    async def definitions(schema: str) -> list[str]:
        rows = await site.read("SELECT definition FROM nodes ORDER BY key", schema=schema)
        return [row["definition"] for row in rows]

    async with site.on_target() as listener:
        await listener.add_listener(names.NOTIFY_CHANNEL, lambda *told: events.append(str(told[3])))
        done = await site.promote()
        await listener.fetch("SELECT 1")
    assert (done.provider_id, done.shadow_provider_id) == ("acme", "default")
    assert (done.qdrant_prefix, done.despite) == ("kg_shadow_", ())
    [event] = map(SyncEvent.model_validate_json, events)
    assert (event.graph, event.rows.keys() >= {"nodes", "node_facts"}) == ("kg", True)
    assert await definitions("kg") == ["A CHILD", "A PARENT"]
    assert await definitions("kg_shadow") == ["a child", "a parent"]

    # Both go on, over the connections and statements that they had.
    await site.write("UPDATE write_nodes SET definition = 'new'; DELETE FROM write_edges")
    await site.both()
    assert await definitions("kg") == ["NEW", "NEW"]
    assert await definitions("kg_shadow") == ["new", "new"]
    assert not await site.read("SELECT FROM edges")
    assert len(await site.points()) == len(await site.points(shadow=True)) == 4

    back = await site.promote()
    assert (back.provider_id, back.shadow_provider_id, back.qdrant_prefix) == ("default", "acme", "kg_")
    assert await definitions("kg") == ["new", "new"]
    await site.both()
    assert (await site.verify()).equal
    audit = await site.read("SELECT who, action, why FROM sync_audit ORDER BY at")
    assert [tuple(line) for line in audit] == [
        ("ann", "promote", "it is better (provider default before)"),
        ("ann", "promote", "it is better (provider acme before)"),
    ]


async def test_what_was_visible_is_visible_in_a_promoted_shadow(site: Site) -> None:
    async def token() -> str:
        async with site.on(site.services.settings.write_dsn, "kg") as writer, writer.transaction():
            await writer.execute("UPDATE write_nodes SET definition = 'mine' WHERE id = 'a'")
            return str(await writer.fetchval("SELECT syncline.token()"))

    async def visible(mine: str) -> bool:
        [row] = await site.read("SELECT visible FROM syncline.visible('kg', $1)", mine)
        return bool(row["visible"])

    await site.both()
    # The live graph looks again, because somebody waits; the shadow has had no reason to.
    mine = await token()
    assert (await site.cycle(shadow=True)).drained
    await site.read("SELECT nextval('sync_wanted')")
    assert (await site.cycle()).drained
    assert await visible(mine)
    assert (await site.promote()).despite == ()
    assert await visible(mine)
    await site.both()
    await site.read("UPDATE sync_state SET visible_clean = '{[1,)}' RETURNING 1")
    with pytest.raises(ShadowInvalid, match="told that they are visible"):
        await site.promote()


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_a_promotion_that_is_tried_again_swaps_once(site: Site) -> None:
    await site.both()
    first, second = await site.promote("run-1"), await site.promote("run-1")
    assert first.model_copy(update={"paused_seconds": 0.0}) == second
    assert first.provider_id == "acme"


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_a_promotion_cut_off_between_two_databases_is_finished_by_the_next(apart: Site) -> None:
    await apart.both()
    before = await apart.graph()
    async with apart.services.control.driver() as holder, holder.transaction():
        await holder.execute("SELECT FROM syncline.graphs FOR UPDATE")
        cut = asyncio.create_task(apart.promote("run-1"))

        async def swapped() -> bool:
            [state] = await apart.read("SELECT vector_prefix FROM sync_state")
            return bool(state["vector_prefix"] == "kg_shadow_")

        await eventually(swapped)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
    assert await apart.graph() == before
    for shadow in (False, True):
        with pytest.raises(SchemaMoved, match="syncline provider promote kg"):
            await apart.cycle(shadow=shadow)
    done = await apart.promote("run-1")
    assert (done.resumed, done.provider_id, done.qdrant_prefix) == (True, "acme", "kg_shadow_")
    assert (await apart.promote("run-1")).provider_id == "acme"
    await apart.write("UPDATE write_nodes SET definition = 'new'")
    await apart.both()
    assert (await apart.verify()).equal
    assert (await apart.compare()).equal


async def test_a_cycle_that_read_the_record_before_a_promotion_writes_nothing(site: Site) -> None:
    await site.both()
    before = await site.graph()
    await site.promote()
    await site.write("UPDATE write_nodes SET definition = 'new'")
    with pytest.raises(SchemaMoved):
        await run_stale(site, before)
    assert {row["definition"] for row in await site.read("SELECT definition FROM nodes")} == {
        "a child",
        "a parent",
    }


async def run_stale(site: Site, graph: Graph) -> SyncResult:
    """Run the live engine over the graph as it was."""
    await site.graph(**SHADOWED)
    return await site.cycle(graph=graph)


async def test_a_promotion_waits_for_a_horizon_as_high_as_what_the_live_graph_has_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It falls while a transaction of another database ends; what readers see already would be gone until the next cycle."""
    await site.unmade()
    await site.graph(**SHADOWED)
    await site.both()
    dsn = site.services.settings.write_dsn.get_secret_value()
    elsewhere = await asyncpg.connect(dsn, database="postgres")
    try:
        async with elsewhere.transaction():
            await elsewhere.fetchval("SELECT pg_current_xact_id()::text")
            await site.write("INSERT INTO write_nodes (id, concept) VALUES ('n3', 'New')")
            await site.cycle()
            monkeypatch.setattr(rendered, "HORIZON", "pg_snapshot_xmin(pg_current_snapshot())")
            with pytest.raises(ShadowInvalid, match="yet to look at what the live graph has read"):
                await site.promote()
    finally:
        await elsewhere.close()


async def test_what_speaks_against_a_promotion_is_told_and_force_goes_over_it(site: Site) -> None:
    await site.unmade()
    await site.graph(**LIVE)
    with pytest.raises(ShadowInvalid, match="declares no `shadow`"):
        await site.promote()
    await site.graph(**SHADOWED)
    with pytest.raises(ShadowInvalid, match="has not run yet"):
        await site.promote()
    await site.both()
    await site.write("INSERT INTO write_nodes (id, concept) VALUES ('n3', 'New')")
    await site.cycle()
    with pytest.raises(ShadowInvalid, match="yet to read what the live graph has: nodes"):
        await site.promote()
    await site.cycle(shadow=True)
    async with site.on_target() as product:
        await product.execute("CREATE INDEX by_concept ON nodes (concept); CREATE SCHEMA reports")
        await product.execute("CREATE VIEW reports.nodes AS SELECT concept FROM nodes")
        await product.execute("CREATE TABLE reports.notes (about uuid REFERENCES nodes (id))")
        with pytest.raises(ShadowInvalid) as refused:
            await site.promote()
        assert "the shadow has no index 'by_concept'" in str(refused.value)
        assert "table 'reports.notes' references the live table 'nodes' (notes_about_fkey)" in str(
            refused.value
        )
        assert "view 'reports.nodes' reads the live tables" in str(refused.value)
        assert "CREATE TABLE … (LIKE … INCLUDING ALL)" in str(refused.value)
        assert "again later" not in str(refused.value)
    with pytest.raises(InputInvalid, match="give `who` and `why`"):
        await promote(site.services, await site.graph(), KNOWLEDGE_GRAPH, actor=Actor(why="x", run_id="r"))
    done = await site.promote(force=True)
    assert len(done.despite) == 3
    assert done.provider_id == "acme"


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_what_neither_has_read_yet_does_not_speak_against_it(site: Site) -> None:
    await site.both()
    await site.write("INSERT INTO write_nodes (id, concept) VALUES ('n3', 'New')")
    assert (await site.promote()).provider_id == "acme"
    await site.both()
    assert (await site.verify()).equal


async def test_nothing_is_swapped_under_a_running_cycle(site: Site) -> None:
    await site.both()
    async with site.on_target("kg_shadow") as cycle:
        await cycle.execute("SELECT pg_advisory_lock(hashtextextended('syncline:' || current_schema(), 0))")
        with pytest.raises(ShadowInvalid, match="a cycle was running"):
            await site.promote(force=True)
    assert (await site.graph()).qdrant_prefix == "kg_"


async def test_who_could_read_the_live_tables_can_read_them_after_a_promotion(site: Site) -> None:
    role = f"reader_{uuid4().hex[:8]}"
    async with site.on_target() as admin:
        await admin.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA kg TO {role}")
        await admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA kg TO {role} WITH GRANT OPTION")
        try:
            await admin.execute(f"GRANT UPDATE (concept) ON kg.nodes TO {role}")
            await admin.execute(f"REVOKE SELECT ON kg.facts FROM {role}")
            await admin.execute(f"GRANT SELECT (id) ON kg.facts TO {role}")
            await site.both()
            await site.promote()
            await admin.execute(f"SET ROLE {role}")
            assert await admin.fetchval("SELECT count(*) FROM kg.nodes") == 2
            assert await admin.fetchval("SELECT count(id) FROM kg.facts") == 2
            await admin.execute("UPDATE kg.nodes SET concept = 'mine'")
            for refused in ("SELECT content FROM kg.facts", "UPDATE kg.nodes SET definition = 'mine'"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await admin.execute(refused)
        finally:
            await admin.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_no_other_graph_can_have_the_place_of_a_shadow(site: Site) -> None:
    add = site.services.graphs.add
    with pytest.raises(GraphInvalid, match="schema_name"):
        await add(GraphDraft(slug="kg-shadow"))
    with pytest.raises(GraphInvalid, match="qdrant_prefix"):
        await add(GraphDraft(slug="other", qdrant_prefix="kg_shadow_"))
    await site.both()
    await site.promote()
    with pytest.raises(GraphInvalid, match="qdrant_prefix"):
        await add(GraphDraft(slug="other", qdrant_prefix="kg_"))
    await add(GraphDraft(slug="other"))


async def test_a_place_that_is_taken_is_left_alone(site: Site) -> None:
    await site.unmade()
    async with site.on_target() as owner:
        await owner.execute("CREATE SCHEMA kg_shadow; CREATE TABLE kg_shadow.precious (a int)")
        with pytest.raises(ShadowInvalid, match="is not Syncline's"):
            await site.cycle(shadow=True)
        await owner.execute("DROP SCHEMA kg_shadow CASCADE")
        # A graph from before the rule.
        await owner.execute("ALTER TABLE syncline.graphs DISABLE TRIGGER keep_shadow_places")
        await site.services.graphs.add(GraphDraft(slug="kg-shadow"))
    with pytest.raises(ShadowInvalid, match="graph 'kg-shadow' uses its schema 'kg_shadow'"):
        await site.cycle(shadow=True)


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_another_provider_begins_anew_once_the_old_result_is_dropped(site: Site) -> None:
    await site.both()
    await site.graph(**LOUD)
    with pytest.raises(ShadowInvalid, match="--drop-shadow"):
        await site.cycle(shadow=True)
    with pytest.raises(ShadowInvalid, match="result of provider 'acme'"):
        await site.promote()
    graph = await site.graph()
    async with site.on_target("kg_shadow") as cycle:
        await cycle.execute("SELECT pg_advisory_lock(hashtextextended('syncline:' || current_schema(), 0))")
        # A worker that has not its provider may know other collections of it.
        bare = SchemaMap(name="bare", tables=tuple(replace(t, vector=None) for t in KNOWLEDGE_GRAPH))
        dropping = asyncio.create_task(drop_shadow(site.services, graph, bare))
        await asyncio.sleep(0.2)
        assert not dropping.done()
    await dropping
    assert await site.points(shadow=True) == {}
    assert len(await site.points()) == 4
    await drop_shadow(site.services, graph, KNOWLEDGE_GRAPH)
    await site.cycle(shadow=True)
    assert (await site.compare()).differences == ("nodes (rows) differ in definition: 2",)


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_a_shadow_that_is_promoted_meanwhile_is_not_dropped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.both()
    graph, promoting = await site.graph(), _Promotion.lacks
    dropping: list[asyncio.Task[None]] = []

    async def lacks(work: _Promotion, connection: AsyncConnection) -> list[str]:
        """Have the drop wait for the locks that the promotion holds."""
        dropping.append(asyncio.create_task(drop_shadow(site.services, graph, KNOWLEDGE_GRAPH)))

        async def waits() -> bool:
            held = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            here = "datname = current_database()"
            return bool(await site.read(f"{held} AND database = (SELECT oid FROM pg_database WHERE {here})"))

        await eventually(waits)
        return await promoting(work, connection)

    monkeypatch.setattr(_Promotion, "lacks", lacks)
    await site.promote()
    with pytest.raises(ShadowInvalid, match="is not its shadow's, or not since"):
        await dropping[0]
    assert len(await site.points()) == len(await site.points(shadow=True)) == 4
    assert (await site.verify()).equal
    assert (await site.compare()).equal


async def test_migrations_follow_the_shadow(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.both()
    later = with_later_revision(tmp_path, "engine", "CREATE TABLE later (id int)")
    monkeypatch.setattr(migrations, "_HERE", later)
    assert await site.services.prepare_graph(await site.graph()) == ["engine_later", "engine_later"]


async def test_the_shadow_of_a_graph_in_public_is_not_promoted(site: Site) -> None:
    graph = (await site.graph(**SHADOWED)).model_copy(update={"schema_name": "public"})
    with pytest.raises(ShadowInvalid, match=r"schema is public.*graph set --composition"):
        await promote(site.services, graph, KNOWLEDGE_GRAPH, actor=Actor(who="w", why="y"), force=True)


@pytest.mark.long(
    "test_a_promoted_shadow_is_live_and_can_be_promoted_back",
    "test_what_differs_is_named_by_table_key_and_column",
)
async def test_two_promotions_at_once_swap_once(site: Site) -> None:
    await site.both()
    one_run = [
        promote(
            site.services,
            await site.graph(),
            KNOWLEDGE_GRAPH,
            actor=Actor(who="ann", why="it is better", run_id="run-1"),
            patience=20,
        )
        for _attempt in range(2)
    ]
    assert {done.qdrant_prefix for done in await asyncio.gather(*one_run)} == {"kg_shadow_"}
    await site.both()
    await site.promote()
    await site.both()
    ended = await asyncio.gather(site.promote(), site.promote(), return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["Promotion", "ShadowInvalid"], ended
    assert (await site.graph()).qdrant_prefix == "kg_shadow_"
