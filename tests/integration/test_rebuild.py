"""A graph is rebuilt beside itself: readers miss nothing, others lose nothing, and a killed step is run again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import JsonValue, SecretStr

from syncline.capture.install.install import adopt
from syncline.control.audit import Actor
from syncline.control.graphs import GraphChanges, GraphDraft, GraphRepository
from syncline.control.rebuild_record import RebuildRecords
from syncline.engine import KNOWLEDGE_GRAPH, cycle, visible
from syncline.engine.visible import Look
from syncline.errors import RebuildRefused, ShadowInvalid
from syncline.messages.rebuild import ChangeRebuildInput, RebuildAction
from syncline.operator import rebuild
from syncline.operator.maps import GraphMap, map_of
from syncline.operator.rebuild import change_rebuild, drop, rollback, start, switch
from syncline.operator.rebuild_state import describe_rebuild, read_rebuild
from syncline.settings import Settings
from syncline.shadow import promote as promotions
from syncline.shadow.dependents import Dependent, Dependents
from syncline.shadow.promote import _Promotion
from syncline.shadow.swap import SchemaSwap
from syncline.stores.qdrant_edge import EmbeddedQdrantStore
from syncline.testing.lab import eventually
from tests.kit.cases import further
from tests.kit.rebuild_site import OTHERS, Reader, RebuildSite, Verb, rebuild_site
from tests.kit.shadow_site import opened_site

NODES = 60
ACTOR = Actor(who="ann", why="a shop opens", run_id="run-1")


@pytest_asyncio.fixture(loop_scope="session")
async def kg(migrated: tuple[str, str], tmp_path: Path) -> AsyncIterator[RebuildSite]:
    write, graph = map(SecretStr, migrated)
    settings = Settings(write_dsn=write, graph_dsn=graph, qdrant_path=tmp_path / "q")
    async with rebuild_site(settings, nodes=NODES) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def apart(
    migrated: tuple[str, str], new_database: Callable[..., str], tmp_path: Path
) -> AsyncIterator[RebuildSite]:
    """The same with a control plane in a database of its own."""
    write, graph = map(SecretStr, migrated)
    control = SecretStr(new_database())
    settings = Settings(write_dsn=write, graph_dsn=graph, control_dsn=control, qdrant_path=tmp_path / "q")
    async with rebuild_site(settings, nodes=20) as found:
        yield found


@pytest.mark.long(after=1)
@pytest.mark.parametrize("schema", ["kg", "public"])
async def test_readers_miss_nothing_while_a_graph_is_rebuilt_switched_and_rolled_back(
    migrated: tuple[str, str], tmp_path: Path, schema: str
) -> None:
    write, graph = map(SecretStr, migrated)
    settings = Settings(write_dsn=write, graph_dsn=graph, qdrant_path=tmp_path / "q")
    async with rebuild_site(settings, nodes=NODES, schema=schema) as kg:
        await kg.make(OTHERS)
        await readers_miss_nothing(kg)


async def readers_miss_nothing(kg: RebuildSite) -> None:
    assert (await kg.status()).command == "syncline rebuild start kg"
    reader = Reader(kg)
    queries = (
        f"SELECT count(*) FROM {kg.site.schema}.nodes",
        "SELECT count(*) FROM reports.named",
        "SELECT count(*) FROM nodes n JOIN node_facts l ON l.node_id = n.id JOIN facts f ON f.id = l.fact_id",
    )
    writing = True

    async def write() -> None:
        while writing:
            await kg.add()
            await kg.cycles()

    async with reader.reading(*queries):
        writer = asyncio.create_task(write())
        await kg.do(start)
        assert (await kg.status()).state in ("filling", "ready")
        done = await kg.do(switch)
        assert any(line.startswith("Verified: ") for line in done), done
        assert (await kg.status()).state == "switched"
        await kg.do(rollback)
        await kg.do(switch)
        seen = reader.reads

        async def read_on() -> bool:
            return reader.reads > seen + 20

        await eventually(read_on)
        writing = False
        await writer
    assert reader.errors == []
    assert reader.missing == []
    assert reader.reads > 50
    await kg.cycles()
    assert (await kg.site.verify()).equal
    assert (await kg.site.compare()).equal
    await kg.do(drop)
    await kg.add()
    await kg.cycles()
    await kg.read_all()
    assert (await kg.site.verify()).equal
    assert (await kg.status()).state == "none"
    audit = await kg.site.services.graphs.audited("kg", limit=20)
    actions = [entry.action for entry in reversed(audit.entries) if entry.action.startswith("rebuild-")]
    assert actions == [f"rebuild-{verb}" for verb in ("start", "switch", "rollback", "switch", "drop")]


@pytest.mark.long(after=1)
@pytest.mark.parametrize("schema", ["kg", "public"])
async def test_what_others_have_comes_along_and_back(
    migrated: tuple[str, str], tmp_path: Path, schema: str
) -> None:
    """Schema public is not renamed: the tables of the graph move."""
    write, graph = map(SecretStr, migrated)
    settings = Settings(write_dsn=write, graph_dsn=graph, qdrant_path=tmp_path / "q")
    async with rebuild_site(settings, nodes=20, schema=schema) as kg:
        await others_come_along(kg)


async def others_come_along(kg: RebuildSite) -> None:
    await kg.make(OTHERS)
    before = await kg.catalog()
    await kg.do(start)
    await kg.cycles()
    for verb in (switch, rollback, switch):
        await kg.do(verb)
        assert await kg.catalog() == before, verb
        await kg.make("TRUNCATE reports.log")
        await kg.site.write("UPDATE write_nodes SET concept = concept || '!' WHERE id = 'n2'")
        await kg.cycles()
        # Of both generations that were written, only the live one has the trigger.
        assert [row["concept"] for row in await kg.site.read("SELECT concept FROM reports.log")] == [
            *(row["title"] for row in await kg.site.read("SELECT title FROM titles WHERE key = 'n2'"))
        ]
    # Made since: it comes along too, and what the first generation lacks of it is made there.
    await kg.make("CREATE INDEX later ON kg.nodes (definition); CREATE VIEW kg.more AS TABLE kg.nodes")
    before = await kg.catalog()
    await kg.do(rollback)
    assert await kg.catalog() == before
    await kg.do(switch)
    await kg.do(drop)
    assert await kg.catalog() == before
    await kg.site.write("DELETE FROM write_nodes WHERE id = 'n1'")
    await kg.cycles()
    [left] = await kg.site.read(
        "SELECT (SELECT count(*) FROM notes) AS notes, (SELECT count(*) FROM reports.seen) AS seen,"
        " titled('good') AS titles"
    )
    assert tuple(left) == (2, 19, 19)


SHOP = """
version: 1
name: shop
tables:
  makers: {source: maker, columns: [name]}
  goods:
    source: article
    key: id
    types: {id: bigint}
    id: same
    columns: {title: text, nr: integer}
    references: {maker: {parent: makers, required: false}}
    vector: {collection: goods, text: t.title, payload: {id: t.id}}
"""


async def test_tables_of_a_stored_map_are_made_again_as_they_are(
    new_database: Callable[..., str], tmp_path: Path
) -> None:
    write, graph = SecretStr(new_database()), SecretStr(new_database())
    async with opened_site(Settings(write_dsn=write, graph_dsn=graph, qdrant_path=tmp_path / "q")) as site:
        kg, services = RebuildSite(site), site.services
        async with site.on(write, "public") as connection:
            await connection.execute(
                "CREATE SCHEMA kg; CREATE TABLE kg.maker (id text PRIMARY KEY, name text);"
                "CREATE TABLE kg.article (id bigint PRIMARY KEY, title text, nr integer, maker text);"
                "INSERT INTO kg.maker SELECT 'm' || i, 'maker ' || i FROM generate_series(1, 3) i;"
                "INSERT INTO kg.article SELECT i, 'good ' || i, i, 'm' || i FROM generate_series(1, 3) i"
            )
        await kg.make(
            """
            CREATE SCHEMA kg; CREATE SCHEMA reports;
            CREATE DOMAIN kg.title AS text CHECK (VALUE <> '');
            CREATE TABLE kg.makers (
                id uuid PRIMARY KEY, key text NOT NULL CONSTRAINT "one key" UNIQUE, name text, sync_version bigint,
                sync_run bigint
            );
            CREATE TABLE kg.goods (
                id bigint CONSTRAINT numbered PRIMARY KEY CHECK (id > 0), title text, nr serial,
                maker uuid CONSTRAINT made_by REFERENCES kg.makers (id) DEFERRABLE, sync_version bigint,
                sync_run bigint, more text GENERATED ALWAYS AS ('more') STORED
            );
            CREATE INDEX ON kg.goods (maker);
            CREATE VIEW kg.titles AS SELECT id AS key FROM kg.goods;
            CREATE TABLE reports.orders (id integer DEFAULT nextval('kg.goods_nr_seq'), good bigint);
            GRANT USAGE ON SEQUENCE kg.goods_nr_seq TO PUBLIC;
            """
        )
        await services.prepare_control()
        await services.maps.put("shop", SHOP, hash="h", actor=ACTOR)
        named: dict[str, JsonValue] = {"sync": {"provider": "default", "options": {"map": "shop"}}}
        await services.graphs.add(GraphDraft(slug="kg", composition=named), prepare=services.prepare_graph)
        known = (await map_of(services, await site.graph())).schema_map
        await adopt(services.store("write", None), "kg", known)
        assert (await site.cycle()).drained
        before = await kg.catalog()
        await kg.do(start)
        assert (await kg.status()).state == "ready", await kg.status()
        for number, verb in enumerate((switch, rollback, switch, drop), 1):
            await kg.do(verb)
            assert await kg.catalog() == before, verb
            # The numbers go on, whichever tables have them.
            await kg.make("INSERT INTO reports.orders (good) VALUES (1)")
            [owned] = await site.read(
                "SELECT pg_get_serial_sequence('kg.goods', 'nr') AS by, (SELECT max(id) FROM reports.orders) AS last"
            )
            assert tuple(owned) == ("kg.goods_nr_seq", number)
            await site.write("UPDATE article SET title = title || '!'")
            await kg.cycles()
        assert {row["title"] for row in await site.read("SELECT title FROM goods")} == {
            f"good {number}!!!!" for number in (1, 2, 3)
        }
        assert await services.vector_store(None).count("kg_goods.live") == 3


async def test_start_is_refused_for_what_cannot_come_along_and_changes_nothing(
    kg: RebuildSite,
) -> None:
    before = await kg.catalog()
    await kg.make(
        """
        ALTER TABLE kg.facts ADD COLUMN stars integer;
        CREATE MATERIALIZED VIEW kg.counted AS SELECT count(*) FROM kg.nodes;
        CREATE FUNCTION kg.all_nodes() RETURNS SETOF kg.nodes LANGUAGE sql AS 'TABLE kg.nodes';
        CREATE PUBLICATION feed FOR TABLE kg.facts;
        """,
    )
    with pytest.raises(RebuildRefused) as refused:
        await kg.do(start)
    for named in (
        "column 'stars' of table 'facts'",
        "materialized view kg.counted",
        "function kg.all_nodes()",
        "publication 'feed' has table 'facts'",
    ):
        assert named in str(refused.value), named
    assert refused.value.fix
    found = await kg.status()
    assert (found.state, found.command) == ("none", None), found
    assert len(found.obstacles) == 4, found.obstacles
    assert not (await kg.site.graph()).shadowed
    assert not await kg.site.read("SELECT FROM pg_namespace WHERE nspname = 'kg_shadow'")
    await kg.make(
        "DROP PUBLICATION feed; DROP FUNCTION kg.all_nodes; DROP MATERIALIZED VIEW kg.counted;"
        "ALTER TABLE kg.facts DROP COLUMN stars",
    )
    assert await kg.catalog() == before
    with pytest.raises(RebuildRefused, match="there is no rebuild"):
        await kg.do(switch)
    await kg.site.services.graphs.update("kg", GraphChanges(composition={"shadow": {"provider": "default"}}))
    with pytest.raises(RebuildRefused, match="the graph has a shadow"):
        await kg.do(start)


async def test_switch_is_refused_until_what_was_rebuilt_is_equal_and_has_all(
    kg: RebuildSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kg.make("ALTER TABLE kg.facts ALTER COLUMN fact_type TYPE varchar(20)")
    await kg.do(start)
    # Only what is made can be compared: the start tells of it, before anything was filled.
    found = await kg.status()
    assert ("'fact_type' of table 'facts'" in str(found.obstacles), "refused" in found.next) == (True, True)
    await kg.make("ALTER TABLE kg.facts ALTER COLUMN fact_type TYPE text")
    await kg.make(
        "DELETE FROM kg_shadow.edges; DELETE FROM kg_shadow.node_facts WHERE node_id = (SELECT id FROM kg.nodes WHERE key = 'n1')",
    )
    with pytest.raises(RebuildRefused, match=r"not equal: node_facts \(links\): 1 damaged") as refused:
        await kg.do(switch)
    assert "syncline verify kg/shadow" in str(refused.value)
    await kg.make(
        "INSERT INTO kg_shadow.node_facts (node_id, fact_id) SELECT node_id, fact_id FROM kg.node_facts ON CONFLICT DO NOTHING",
    )
    await kg.add()
    await kg.site.cycle()
    kg.stuck = True
    with pytest.raises(RebuildRefused, match="yet to read what the live graph has"):
        await kg.do(switch, patience=0)
    await kg.cycles()
    await kg.make("ALTER TABLE kg.facts ALTER COLUMN fact_type TYPE varchar(20)")
    with monkeypatch.context() as patched:
        patched.delattr(rebuild, "verify_side")  # that may take hours
        with pytest.raises(RebuildRefused, match="'fact_type' of table 'facts' is character varying"):
            await kg.do(switch)
    await kg.make("ALTER TABLE kg.facts ALTER COLUMN fact_type TYPE text")
    # A reader that holds a lock is waited for only so long, and nothing is changed then.
    await kg.make("CREATE VIEW kg.titles AS SELECT key FROM kg.nodes")
    async with kg.site.on_target() as reader, reader.transaction():
        await reader.fetch("SELECT FROM kg.titles")
        with pytest.raises(ShadowInvalid, match=r"locks on view kg\.titles"):
            await kg.do(switch, patience=0)
    assert (await kg.status()).state == "ready"
    await kg.do(switch)
    assert (await kg.status()).state == "switched"
    # As `--anyway` leaves it behind.
    await kg.make(
        "ALTER TABLE kg_shadow.facts ADD COLUMN stars serial; CREATE SCHEMA reports;"
        "CREATE TABLE reports.seen (id integer DEFAULT nextval('kg_shadow.facts_stars_seq'))"
    )
    with pytest.raises(RebuildRefused, match=r"reports\.seen takes its numbers from 'facts_stars_seq'"):
        await kg.do(drop)


async def test_switch_finds_its_moment_although_rows_are_written_all_the_time(
    kg: RebuildSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a cycle reads, something has been overwritten unread when it looks whether it has all."""

    async def look(*arguments: Any, **options: Any) -> Look:
        await kg.site.write("UPDATE write_nodes SET definition = definition || '!' WHERE id = 'n1'")
        return await visible.look(*arguments, **options)

    monkeypatch.setattr(cycle, "look", look)
    await kg.do(start)
    await kg.cycles()
    await kg.do(switch, patience=20)
    assert (await kg.status()).state == "switched"


async def test_cycle_keeps_the_pace_of_a_rebuild(kg: RebuildSite) -> None:
    await kg.do(start, rows_per_second=50)
    await kg.site.read("DROP SCHEMA kg_shadow CASCADE")
    begun = time.monotonic()
    result = await kg.site.cycle(shadow=True, rows_per_second=50)
    # 60 facts and 60 nodes: a full batch of each, and a wait after it.
    assert (result.drained, result.batches >= 4, time.monotonic() - begun > 1.9) == (True, True, True)
    assert (await kg.status()).rows_per_second == 50
    assert await kg.do(start, rows_per_second=0) == ["A rebuild is recorded, without a limit."]


class _DiedError(Exception):
    """The worker died here."""


class _Steps:
    """Dies once before each step of a verb that reaches databases or vector store, while it is `deadly`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deadly = False
        self.died: list[tuple[str, ...]] = []
        for place, names in (
            (EmbeddedQdrantStore, ("ensure_collection", "set_aliases", "drop_collection")),
            (RebuildRecords, ("put", "keep", "remove")),
            (GraphRepository, ("audit", "update", "swap_shadow")),
            (Dependents, ("_make", "analyze")),
            (_Promotion, ("swap", "finish")),
            (SchemaSwap, ("_carry",)),
            (rebuild, ("prepare_shadow", "drop_shadow", "lead_readers")),
        ):
            for name in names:
                monkeypatch.setattr(place, name, self._counted(getattr(place, name)))

    def _counted(self, step: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def counted(*arguments: object, **options: object) -> object:
            what = (one.name if isinstance(one, Dependent) else one for one in arguments)
            named = (step.__qualname__, *(one for one in what if isinstance(one, str)))
            if self.deadly and named not in self.died:
                self.died.append(named)
                raise _DiedError
            return await step(*arguments, **options)

        return counted


_VERBS = [
    ([], start, 7, "ready"),
    ([start], switch, 12, "switched"),
    ([start, switch], drop, 7, "none"),
    ([start, switch], rollback, 11, "ready"),
]


async def dies_everywhere(
    kg: RebuildSite, monkeypatch: pytest.MonkeyPatch, before: list[Verb], verb: Verb, number: int, after: str
) -> None:
    await kg.make(
        "CREATE VIEW kg.titles AS SELECT key FROM kg.nodes; CREATE INDEX by_concept ON kg.nodes (concept);"
        "COMMENT ON TABLE kg.facts IS 'theirs'; CREATE SCHEMA reports;"
        "CREATE TABLE reports.seen (node uuid REFERENCES kg.nodes (id))",
    )
    for earlier in before:
        await kg.do(earlier)
        await kg.cycles()
    steps = _Steps(monkeypatch)
    while True:
        steps.deadly = True
        try:
            await kg.do(verb)
            break
        except _DiedError:
            steps.deadly = False
        found = await kg.status()
        # What is told then ends what was begun, or what came of it.
        assert found.state != "interrupted" or found.command == f"syncline rebuild {verb.__name__} kg", found
        await kg.add()
        await kg.cycles()
        await kg.read_all()
    steps.deadly = False
    assert len(steps.died) == number, steps.died
    assert (
        kg.synced >= kg.written - 1
    )  # one that died between two databases stops cycles until it is run again
    await kg.cycles()
    await kg.read_all()
    assert kg.synced == kg.written
    found = await kg.status()
    assert (found.state, found.behind) == (after, ())
    assert (await kg.site.verify()).equal


@pytest.mark.long(after=2)
@pytest.mark.parametrize(
    ("before", "verb", "steps", "after"), _VERBS, ids=["start", "switch", "drop", "rollback"]
)
async def test_verb_that_dies_at_any_step_is_run_again(
    kg: RebuildSite,
    monkeypatch: pytest.MonkeyPatch,
    before: list[Verb],
    verb: Verb,
    steps: int,
    after: str,
) -> None:
    await dies_everywhere(kg, monkeypatch, before, verb, steps, after)


@pytest.mark.long("test_verb_that_dies_at_any_step_is_run_again")
@pytest.mark.parametrize(
    ("before", "verb", "steps", "after"),
    [([start], switch, 13, "switched"), *further(([start, switch], rollback, 12, "ready"))],
    ids=["switch", "rollback"],
)
async def test_verb_that_dies_between_two_databases_is_run_again(
    apart: RebuildSite,
    monkeypatch: pytest.MonkeyPatch,
    before: list[Verb],
    verb: Verb,
    steps: int,
    after: str,
) -> None:
    await dies_everywhere(apart, monkeypatch, before, verb, steps, after)


async def test_step_that_was_cut_off_is_finished_before_another_one(
    apart: RebuildSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(*_: object, **__: object) -> None:
        raise _DiedError

    await apart.do(start)
    for verb, others in ((switch, (rollback, drop, start)), (rollback, (switch, drop))):
        with monkeypatch.context() as patched:
            # Between the two databases: the schemas are swapped, and the record is not.
            patched.setattr(GraphRepository, "swap_shadow", dies)
            with pytest.raises(_DiedError):
                await apart.do(verb)
        with monkeypatch.context() as patched:
            patched.setattr(promotions, "migrate_bookkeeping", dies)  # by one who reads
            found = await apart.status()
        name = f"syncline rebuild {verb.__name__} kg"
        assert (found.state, found.command) == ("interrupted", name)
        for other in others:
            with pytest.raises(RebuildRefused, match=f"`{name}` again"):
                await apart.do(other)
        await apart.do(verb)
        assert (await apart.status()).state == ("switched" if verb is switch else "ready")
        await apart.cycles()


async def test_worker_without_the_provider_refuses_each_step(kg: RebuildSite) -> None:
    await kg.do(start)
    await kg.do(switch)
    graph = await kg.site.graph()
    known = GraphMap(schema_map=KNOWLEDGE_GRAPH, unknown="Provider 'acme' is not installed in this worker.")
    actions: tuple[RebuildAction, ...] = ("start", "switch", "rollback", "drop")
    for action in actions:
        request = ChangeRebuildInput(graph="kg", action=action, anyway=True)
        with pytest.raises(RebuildRefused, match="'acme' is not installed") as refused:
            await change_rebuild(kg.site.services, graph, known, request, actor=ACTOR, runs=kg)
        assert "task queue 'syncline/operations'" in (refused.value.fix or "")
    found = await describe_rebuild(await read_rebuild(kg.site.services, graph, known))
    assert (found.state, found.obstacles, found.command) == ("switched", (known.unknown,), None)
    assert (await kg.status()).state == "switched"
