"""A graph that is rebuilt, in real stores: its verbs, what others have in its schema, and who reads meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg

from syncline.control.audit import Actor
from syncline.control.graphs import GraphDraft
from syncline.errors import SchemaMoved
from syncline.messages.rebuild import RebuildStatus
from syncline.operator.maps import map_of
from syncline.operator.rebuild_state import describe_rebuild, read_rebuild
from syncline.settings import Settings
from tests.kit.shadow_site import LIVE, Site, opened_site

__all__ = ["OTHERS", "Reader", "RebuildSite", "Verb", "rebuild_site"]

Verb = Callable[..., AsyncIterator[str]]

OTHERS = '''
CREATE INDEX nodes_by_concept ON kg.nodes (lower(concept)) WHERE concept IS NOT NULL;
CREATE UNIQUE INDEX "Odd ""name""" ON kg.facts (id, content) INCLUDE (fact_type);
COMMENT ON TABLE kg.nodes IS 'what readers''know';
COMMENT ON COLUMN kg.nodes.concept IS 'shown';
COMMENT ON SCHEMA kg IS 'theirs';
ALTER TABLE kg.raw_sources ALTER COLUMN title SET NOT NULL;
ALTER TABLE kg.nodes ADD CONSTRAINT concept_said CHECK (concept <> 'unsaid');
ALTER TABLE kg.nodes ADD COLUMN shown text GENERATED ALWAYS AS (upper(concept)) STORED;
ALTER TABLE kg.facts SET (fillfactor = 80);
ALTER TABLE kg.nodes ALTER COLUMN definition SET DEFAULT 'none yet';
CREATE STATISTICS kg.together ON concept, definition FROM kg.nodes;
CREATE TYPE kg.mood AS ENUM ('good', 'bad');
CREATE TABLE kg.notes (
    id bigserial PRIMARY KEY, about uuid REFERENCES kg.nodes (id) ON DELETE CASCADE, mood kg.mood
);
INSERT INTO kg.notes (about, mood) SELECT id, 'good' FROM kg.nodes ORDER BY key LIMIT 3;
CREATE VIEW kg.titles WITH (security_barrier) AS SELECT id, key, concept AS title FROM kg.nodes;
CREATE FUNCTION kg.titled(mood kg.mood) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM kg.titles';
CREATE SCHEMA reports;
CREATE VIEW reports.named AS SELECT t.title, n.definition FROM kg.titles t JOIN kg.nodes n USING (id);
CREATE TABLE reports.seen (node uuid CONSTRAINT known REFERENCES kg.nodes (id) ON DELETE CASCADE);
CREATE STATISTICS reports.facts_together ON content, fact_type FROM kg.facts;
INSERT INTO reports.seen SELECT id FROM kg.nodes;
CREATE TABLE reports.log (concept text);
CREATE FUNCTION reports.note() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO reports.log VALUES (NEW.concept); RETURN NULL; END $$;
CREATE TRIGGER told AFTER INSERT OR UPDATE ON kg.nodes FOR EACH ROW EXECUTE FUNCTION reports.note();
ALTER TABLE kg.nodes ENABLE ALWAYS TRIGGER told;
ALTER TABLE kg.facts ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON kg.facts FOR SELECT TO PUBLIC USING (EXISTS (SELECT FROM kg.nodes n WHERE n.id <> facts.id));
GRANT USAGE ON SCHEMA kg, reports TO PUBLIC;
GRANT SELECT ON kg.titles, kg.facts, reports.named TO PUBLIC;
GRANT SELECT (id, concept) ON kg.nodes TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA kg GRANT SELECT ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
'''
"""What readers make in a graph's schema and elsewhere."""

_CATALOG = """
WITH tables AS (
    SELECT c.*, n.nspname AS schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('kg', 'reports')
)
SELECT format('%s %s.%s %s', relkind, schema, relname, reloptions) FROM tables WHERE relkind <> 't'
UNION ALL SELECT format('%s.%s %s', schema, relname, pg_get_indexdef(oid)) FROM tables WHERE relkind = 'i'
UNION ALL SELECT format('%s.%s %s', schema, relname, pg_get_viewdef(oid)) FROM tables WHERE relkind = 'v'
UNION ALL SELECT format('%s.%s %s %s', schema, relname, k.conname, pg_get_constraintdef(k.oid))
    FROM tables t JOIN pg_constraint k ON k.conrelid = t.oid
UNION ALL SELECT format('%s %s', pg_get_triggerdef(g.oid), g.tgenabled)
    FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
UNION ALL SELECT format('%s.%s %s %s %s %s', schema, relname, a.attname, format_type(a.atttypid, a.atttypmod),
                        a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
    FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
    WHERE t.relkind IN ('r', 'v')
UNION ALL SELECT format('%s.%s.%s %s', schema, relname, a.attname, d.description)
    FROM tables t JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = t.oid
    LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.objsubid
UNION ALL SELECT obj_description('kg'::regnamespace, 'pg_namespace')
UNION ALL SELECT format('%s.%s %s %s', schema, relname, a.privilege_type, a.grantee::regrole)
    FROM tables t, aclexplode(t.relacl) a WHERE a.grantee <> t.relowner
UNION ALL SELECT format('%s.%s.%s %s %s', schema, relname, c.attname, a.privilege_type, a.grantee::regrole)
    FROM tables t JOIN pg_attribute c ON c.attrelid = t.oid, aclexplode(c.attacl) a
UNION ALL SELECT format('%s.%s %s %s', schema, relname, relrowsecurity, relforcerowsecurity) FROM tables
UNION ALL SELECT format('%s', p) FROM pg_policies p WHERE schemaname = 'kg'
UNION ALL SELECT pg_get_statisticsobjdef(s.oid) FROM tables t JOIN pg_statistic_ext s ON s.stxrelid = t.oid
UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'kg'::regnamespace
UNION ALL SELECT p.oid::regtype::text FROM pg_type p WHERE typnamespace = 'kg'::regnamespace AND typtype = 'e'
UNION ALL SELECT defaclacl::text FROM pg_default_acl WHERE defaclnamespace = 'kg'::regnamespace
ORDER BY 1
"""


@dataclass
class RebuildSite:
    """Graph `kg` with some nodes and facts, synced; its shadow's runs are cycles of this process."""

    site: Site
    written: int = 0
    """Nodes in the write-db."""
    synced: int = 0
    """Nodes that readers of the live graph have to see."""
    stuck: bool = False
    """Whether the shadow's runs do nothing that a verb starts."""

    async def start(self) -> None:
        """Run a cycle of the shadow, as its run does."""
        if not self.stuck and (await self.site.graph()).shadowed:
            with suppress(SchemaMoved):
                await self.site.cycle(shadow=True)

    async def stop(self) -> None:
        """Do nothing: no cycle is open."""

    async def do(self, verb: Verb, **options: object) -> list[str]:
        """Run a verb as the activity does."""
        graph = await self.site.graph()
        known = await map_of(self.site.services, graph)
        actor = Actor(who="ann", why="damaged", run_id=str(uuid4()))
        steps = verb(self.site.services, graph, known, actor=actor, runs=self, **options)
        return [done async for done in steps]

    async def status(self) -> RebuildStatus:
        graph = await self.site.graph()
        known = await map_of(self.site.services, graph)
        return await describe_rebuild(await read_rebuild(self.site.services, graph, known))

    async def add(self, count: int = 1) -> None:
        """Write nodes, each with a fact, and change one of those before."""
        first, self.written = self.written + 1, self.written + count
        await self.site.write(
            "INSERT INTO write_facts (id, content, dedup_status)"
            f" SELECT 'f' || i, 'fact ' || i, 'ready' FROM generate_series({first}, {self.written}) i;"
            "INSERT INTO write_nodes (id, concept, fact_ids)"
            f" SELECT 'n' || i, 'node ' || i, ARRAY['f' || i] FROM generate_series({first}, {self.written}) i;"
            f"UPDATE write_nodes SET definition = 'as of {first}' WHERE id = 'n1'"
        )

    async def make(self, sql: str) -> None:
        """Make something of others in the graph-db; `kg` is the graph's schema."""
        async with self.site.on_target() as connection:
            await connection.execute(sql.replace("kg", self.site.schema))

    async def cycles(self) -> None:
        """Run a cycle of the graph and one of its shadow; neither while a swap is to be finished."""
        written = self.written
        with suppress(SchemaMoved):
            if (await self.site.cycle()).drained:
                self.synced = written
        self.stuck = False
        await self.start()

    async def catalog(self) -> list[str]:
        """Return everything that is in the graph's schema, and in that of the readers, in words."""
        async with self.site.on_target("pg_catalog") as connection:
            rows = await connection.fetch(_CATALOG.replace("kg", self.site.schema))
        return [row[0] for row in rows]

    async def points(self) -> int:
        """Return how many nodes readers of the vector store find by the name that does not change."""
        return await self.site.services.vector_store(None).count("kg_nodes.live")

    async def read_all(self) -> None:
        """Assert that readers miss nothing that was synced."""
        [row] = await self.site.read("SELECT count(*) AS n, count(DISTINCT key) AS keys FROM titles")
        assert (row["n"] >= self.synced, row["n"]) == (True, row["keys"])
        assert await self.points() >= self.synced


@dataclass
class Reader:
    """Reads rows and points again and again over connections of its own, and notes what is missing."""

    of: RebuildSite
    reads: int = 0
    errors: list[str] = field(default_factory=list)
    missing: list[object] = field(default_factory=list)

    @asynccontextmanager
    async def reading(self, *queries: str, every: float = 0.05) -> AsyncIterator[None]:
        """Run each query, which counts nodes, this often; and count points by the alias."""
        stopped = asyncio.Event()
        tasks = [asyncio.create_task(self._read(query, stopped, every)) for query in queries]
        tasks.append(asyncio.create_task(self._find(stopped, every)))
        try:
            yield
        finally:
            stopped.set()
            await asyncio.gather(*tasks)

    async def _read(self, query: str, stopped: asyncio.Event, every: float) -> None:
        async with self.of.site.on_target() as connection:
            statement = await connection.prepare(query)
            while not stopped.is_set():
                least = self.of.synced
                try:
                    found = await statement.fetchval()
                except asyncpg.PostgresError as error:
                    self.errors.append(f"{query}: {error!r}")
                    return
                self._note(query, found, least)
                await asyncio.sleep(every)

    async def _find(self, stopped: asyncio.Event, every: float) -> None:
        while not stopped.is_set():
            least = self.of.synced
            self._note("points", await self.of.points(), least)
            await asyncio.sleep(every)

    def _note(self, query: str, found: int, least: int) -> None:
        self.reads += 1
        if found < least:
            self.missing.append((query, found, least))


@asynccontextmanager
async def rebuild_site(settings: Settings, *, nodes: int, schema: str = "kg") -> AsyncIterator[RebuildSite]:
    """Yield the graph, synced."""
    async with opened_site(settings) as site:
        site.schema = schema
        await site.services.prepare_control()
        draft = GraphDraft(slug="kg", schema_name=schema, qdrant_prefix="kg_", composition=LIVE)
        await site.services.graphs.add(draft, prepare=site.services.prepare_graph)
        found = RebuildSite(site)
        await found.add(nodes)
        await found.cycles()
        yield found
