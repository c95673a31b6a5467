"""The default provider and the fallback are the same to an observer: rows, result, event, failures."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
import structlog

from providers.default import DefaultSyncProvider
from syncline.control.graphs import Graph
from syncline.messages.sync import SyncEvent, SyncGraphResult
from syncline.testing.lab import SyncLab

FIRST = """
INSERT INTO write_raw_sources (id, title) VALUES ('r', 'Source');
INSERT INTO write_facts (id, content, dedup_status) VALUES ('f1', 'one', 'ready'), ('f2', 'two', 'pending');
INSERT INTO write_fact_sources (fact_id, raw_source_id) VALUES ('f1', 'r'), ('f2', 'r');
INSERT INTO write_nodes (id, concept, parent_id, fact_ids, visibility)
    VALUES ('a', 'A', 'b', '{f1,f2}', 'private'), ('b', 'B', 'zz', '{}', 'public');
INSERT INTO write_edges (id, source_node_id, target_node_id, relationship_type, directed, fact_ids)
    VALUES ('e1', 'b', 'a', 'near', false, '{f1}'), ('e2', 'a', 'zz', 'far', true, '{}');
"""
SECOND = """
UPDATE write_facts SET dedup_status = 'ready' WHERE id = 'f2';
UPDATE write_nodes SET concept = 'A2', parent_id = NULL, fact_ids = '{f2}' WHERE id = 'a';
INSERT INTO write_nodes (id, concept) VALUES ('zz', 'Z');
"""
THIRD = "INSERT INTO write_facts (id, content, dedup_status) VALUES ('refused', 'no', 'ready')"
ROWS = ("raw_sources", "facts", "fact_sources", "nodes", "node_facts", "edges", "edge_facts")
BOOKS = ("sync_parked_row", "sync_parked_reference", "sync_outbox", "sync_vector")
OWN = {"sync_version", "created_at", "updated_at", "since", "image", "seq", "queued_at"}


class Side:
    """One of the two graphs, observed from outside."""

    def __init__(self, lab: SyncLab, graph: Graph, listener: asyncpg.Connection) -> None:
        self.lab = lab
        self.graph = graph
        self._listener = listener
        self._events: list[SyncEvent] = []

    @classmethod
    async def open(cls, lab: SyncLab, graph: Graph) -> "Side":
        listener = await asyncpg.connect(
            lab.services.settings.graph_dsn.get_secret_value(),
            server_settings={"search_path": graph.schema_name},
        )
        side = cls(lab, graph, listener)

        def received(*arguments: object) -> None:
            event = SyncEvent.model_validate_json(str(arguments[-1]))
            if event.graph == graph.slug:
                side._events.append(event)

        await listener.add_listener("syncline", received)
        return side

    async def write(self, sql: str) -> None:
        connection = await asyncpg.connect(
            self.lab.services.settings.write_dsn.get_secret_value(),
            server_settings={"search_path": self.graph.schema_name},
        )
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def lose_a_column(self) -> None:
        await self._listener.execute("ALTER TABLE facts RENAME COLUMN metadata TO something_else")

    async def refuse(self, content: str) -> None:
        await self._listener.execute(
            f"ALTER TABLE facts ADD CONSTRAINT refusal CHECK (content <> '{content}') NOT VALID"
        )

    async def rows(self) -> dict[str, list[dict[str, object]]]:
        return {
            table: sorted(
                (
                    {name: value for name, value in row.items() if name not in OWN}
                    for row in await self._listener.fetch(f"SELECT * FROM {table}")
                ),
                key=str,
            )
            for table in (*ROWS, *BOOKS)
        }

    async def points(self) -> dict[str, object]:
        vectors = self.lab.services.graph_vectors(self.graph)
        found: dict[str, object] = {}
        async for batch in vectors.store.scroll(vectors.collection("nodes")):
            found |= {str(point.id): dict(point.payload) for point in batch}
        return found

    async def events(self) -> list[dict[str, object]]:
        await self._listener.execute("SELECT 1")
        told = [event.model_dump(exclude={"graph", "graph_id", "run_id"}) for event in self._events]
        self._events.clear()
        return told

    async def close(self) -> None:
        await self._listener.close()


@pytest_asyncio.fixture(loop_scope="session")
async def sides(lab: SyncLab) -> AsyncIterator[tuple[Side, Side]]:
    provided = await Side.open(lab, await lab.add_graph(DefaultSyncProvider(), prepare=True))
    fallen_back = await Side.open(lab, await lab.add_graph("acme-sync", prepare=True))
    yield provided, fallen_back
    await provided.close()
    await fallen_back.close()


def observed(result: SyncGraphResult) -> dict[str, object]:
    """Return what a run says, without who ran it and what differs between any two runs."""
    said = result.model_dump(
        include={"failures": True, "result": True, "carried": {"totals"}},
    )
    inner = said["result"]
    for name in ("duration_seconds", "lag_seconds", "oldest_writer", "served"):
        del inner[name]
    if inner["embedding"] is not None:
        del inner["embedding"]["service_today"]  # both have one service
    return said


async def test_both_write_the_same_rows_and_tell_the_same(sides: tuple[Side, Side]) -> None:
    for change, wrote in ((FIRST, True), (SECOND, True), ("SELECT 1", False)):
        results, rows, points, events = [], [], [], []
        for side in sides:
            await side.write(change)
            results.append(await side.lab.run(side.graph))
            rows.append(await side.rows())
            points.append(await side.points())
            events.append(await side.events())
        provided, fallen_back = results
        assert (provided.provider_id, provided.fallback) == ("default", None)
        assert (fallen_back.provider_id, fallen_back.fallback is not None) == (None, True)
        assert observed(provided) == observed(fallen_back)
        assert rows[0] == rows[1]
        assert points[0] == points[1]
        assert len(points[0]) >= 2
        assert events[0] == events[1]
        assert len(events[0]) == (1 if wrote else 0)


@pytest.mark.long("test_both_write_the_same_rows_and_tell_the_same")
async def test_both_refuse_the_same_rows_and_no_row_goes_into_the_history(sides: tuple[Side, Side]) -> None:
    said, attributes = [], []
    for side in sides:
        await side.refuse("no")
        await side.write(THIRD)
        run = await side.lab.start(side.graph)
        result = await run.result()
        said.append(observed(result))
        attributes.append((await side.lab.attributes(run))["SynclineFailures"])
        assert (result.failures, result.result.dead_letters) == (1, 1)
        history = (await run.fetch_history()).to_json()
        assert "Failing row" not in history
        assert "refusal" not in history
    assert said[0] == said[1]
    assert attributes == [1, 1]


@pytest.mark.long("test_both_write_the_same_rows_and_tell_the_same")
async def test_both_fail_the_same_way_and_log_their_failures(sides: tuple[Side, Side]) -> None:
    failures, attributes = [], []
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        for side in sides:
            await side.lose_a_column()
            await side.write(THIRD)
            run = await side.lab.start(side.graph)
            failure = await side.lab.failure(run)
            said = failure.message.replace(side.graph.slug, "G").replace(side.graph.schema_name, "S")
            failures.append((failure.type, said))
            attributes.append((await side.lab.attributes(run))["SynclineFailures"])
    assert failures[0] == failures[1]
    assert failures[0][0] == "CycleFailed"
    assert "42703" in failures[0][1] or "facts.metadata is missing" in failures[0][1]
    assert "DETAIL" not in failures[0][1]
    assert attributes == [1, 1]
    lines = [line for line in logged if line["event"] == "cycle ended"]
    assert [(line["provider"], line["failures"]) for line in lines] == [("default", 1), ("builtin-engine", 1)]
