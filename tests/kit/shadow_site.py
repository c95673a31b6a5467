"""A graph and its shadow in real stores, whose cycles a test runs one by one."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from uuid import uuid4

import asyncpg
import structlog
from pydantic import JsonValue, SecretStr

from providers import BUILTIN
from syncline.control.audit import Actor
from syncline.control.graphs import Graph, GraphChanges
from syncline.control.resolution import resolve_sync_provider
from syncline.control.services import Services
from syncline.engine import KNOWLEDGE_GRAPH, run_cycle
from syncline.messages.operator import Promotion
from syncline.messages.sync import SyncResult
from syncline.messages.verification import Verification
from syncline.provider import CycleBudget, RunIdentity, SyncContext
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.shadow.comparison import compare_with_shadow
from syncline.shadow.prepare import prepare_shadow
from syncline.shadow.promote import promote
from syncline.stores.vectors import PointPayload
from syncline.testing.providers import FakeProvider
from syncline.verify import verify

__all__ = ["LIVE", "LOUD", "SEED", "SHADOWED", "Site", "opened_site", "shouting"]

SEED = """
INSERT INTO write_raw_sources (id, uri, title) VALUES ('r1', 'https://example.org', 'One');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'ready');
INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r1');
INSERT INTO write_nodes (id, concept, definition, parent_id, fact_ids)
    VALUES ('n1', 'Child', 'a child', 'n2', '{f1,f2}'), ('n2', 'Parent', 'a parent', NULL, '{f2}');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, fact_ids)
    VALUES ('e1', 'n1', 'n2', 'child_of', '{f1}');
INSERT INTO write_convergence_reports (node_id, convergence_score) VALUES ('n1', 0.7);
"""
LIVE: dict[str, JsonValue] = {"sync": {"provider": "default"}}
SHADOWED: dict[str, JsonValue] = {**LIVE, "shadow": {"provider": "acme"}}
LOUD: dict[str, JsonValue] = {**LIVE, "shadow": {"provider": "shouting"}}


class Site:
    """One graph, `kg`, whose shadow has a schema and no rows; every run is a new one."""

    def __init__(self, services: Services, acme: FakeProvider) -> None:
        self.services = services
        self.acme = acme
        self.schema = "kg"

    async def graph(self, **composition: JsonValue) -> Graph:
        """Return its record; with a composition, changed to that."""
        if composition:
            await self.services.graphs.update("kg", GraphChanges(composition=composition))
        return await self.services.graphs.get("kg")

    async def write(self, sql: str) -> None:
        async with self.on(self.services.settings.write_dsn, self.schema) as connection:
            await connection.execute(sql)

    async def read(self, sql: str, *arguments: object, schema: str | None = None) -> list[asyncpg.Record]:
        async with self.on_target(schema) as connection:
            return list(await connection.fetch(sql, *arguments))

    @asynccontextmanager
    async def on_target(self, schema: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        async with self.on(self.services.settings.graph_dsn, schema or self.schema) as connection:
            yield connection

    @asynccontextmanager
    async def on(self, dsn: SecretStr, schema: str) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(dsn.get_secret_value(), server_settings={"search_path": schema})
        try:
            yield connection
        finally:
            await connection.close()

    async def cycle(
        self, *, shadow: bool = False, graph: Graph | None = None, rows_per_second: int | None = None
    ) -> SyncResult:
        """Run one cycle as the activity does, with the record as it is now or as it was."""
        services = self.services
        graph = graph or await self.graph()
        resolved = await resolve_sync_provider(services, graph.id, shadow=shadow)
        assert resolved.provider is not None
        assert resolved.options is not None
        if shadow:
            await prepare_shadow(services, graph, resolved.provider.id)
        provider = await services.registry.initialized("sync", resolved.provider.id, services)
        return await provider.sync_cycle(
            SyncContext(
                graph=graph.shadow_ref if shadow else graph.ref,
                run=RunIdentity(workflow_id="w", run_id=str(uuid4()), provider=resolved.provider.id),
                write=services.write_schema(graph),
                target=services.target_schema(graph, shadow=shadow),
                vectors=services.graph_vectors(graph, shadow=shadow),
                embedding=services.embedding,
                budget=CycleBudget(batch_rows=1000, seconds=60, rows_per_second=rows_per_second),
                options=resolved.options,
                heartbeat=lambda _: None,
                log=structlog.get_logger(),
                meter=services.meter,
                shadow=shadow,
                may_embed=partial(services.embedding_refusal, graph),
                embedding_of=partial(services.embedding_of, graph),
            )
        )

    async def unmade(self) -> None:
        """Take the shadow's schema away, as if it had never run."""
        async with self.on_target() as owner:
            await owner.execute("DROP SCHEMA kg_shadow CASCADE")

    async def both(self) -> None:
        """Bring both sides up to date."""
        assert (await self.cycle()).drained
        assert (await self.cycle(shadow=True)).drained

    async def compare(self, **options: bool) -> Verification:
        graph = await self.graph()
        return await compare_with_shadow(self.services, graph, KNOWLEDGE_GRAPH, **options)

    async def verify(self) -> Verification:
        """Compare the live result with the write-db."""
        graph, services = await self.graph(), self.services
        return await verify(
            KNOWLEDGE_GRAPH,
            write=services.write_schema(graph),
            target=services.target_schema(graph),
            vectors=services.graph_vectors(graph),
            embedding=services.embedding.name,
        )

    async def promote(self, run_id: str | None = None, *, force: bool = False) -> Promotion:
        return await promote(
            self.services,
            await self.graph(),
            KNOWLEDGE_GRAPH,
            actor=Actor(who="ann", why="it is better", run_id=run_id or str(uuid4())),
            force=force,
            patience=0.3,
        )

    async def points(self, *, shadow: bool = False) -> dict[str, PointPayload]:
        """Return all points of the graph or its shadow by collection and id."""
        vectors = self.services.graph_vectors(await self.graph(), shadow=shadow)
        return {
            f"{name}/{point.id}": point
            for name in ("nodes", "facts")
            async for page in vectors.store.scroll(vectors.collection(name))
            for point in page
        }

    async def bytes_of(self, dsn: SecretStr, schema: str) -> Mapping[str, list[str]]:
        """Return every row of every table of a schema with the transaction that wrote it."""
        async with self.on(dsn, schema) as connection:
            tables = await connection.fetch(
                "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r'", schema
            )
            return {
                name: sorted(
                    row[0]
                    for row in await connection.fetch(
                        f'SELECT t.xmin::text || t.ctid::text || t::text FROM "{name}" t'
                    )
                )
                for (name,) in tables
            }


async def shouting(context: SyncContext) -> SyncResult:
    """Run the engine, and then have another opinion of definitions."""
    result = await run_cycle(context)
    async with context.target.store.driver() as connection:
        await connection.execute(
            f'UPDATE "{context.target.schema}".nodes SET definition = upper(definition)'
            " WHERE definition IS DISTINCT FROM upper(definition)"
        )
    return result


@asynccontextmanager
async def opened_site(settings: Settings) -> AsyncIterator[Site]:
    registry = Registry()
    registry.load(BUILTIN, entry_points=False)
    acme = FakeProvider("acme", cycle=run_cycle)
    registry.register("sync", acme, "acme 1.0")
    registry.register("sync", FakeProvider("shouting", cycle=shouting), "acme 1.0")
    async with Services.open(settings, registry=registry) as services:
        yield Site(services, acme)
