"""The ledger of embeddings and the budgets of tokens, on a real Postgres."""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import pytest_asyncio
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.control.graphs import Graph, GraphChanges, GraphDraft, GraphRepository
from syncline.control.usage import CycleAccount, UsageLedger, read_usage
from syncline.control.vector_rules import VectorRules
from syncline.embeddings.metered import MeteredEmbedding
from syncline.embeddings.openai import OpenAIEmbedding
from syncline.embeddings.service import EmbeddingService, Usage, Vectors
from syncline.engine import run_cycle
from syncline.errors import EmbeddingBudgetSpent, EmbeddingError, EmbeddingRejected, EmbeddingUnavailable
from syncline.messages.sync import VectorProgress
from syncline.migrations import migrate_control
from syncline.provider import RetryRules
from syncline.stores.postgres import PostgresStore
from syncline.testing.graphs import TestGraph, write
from syncline.testing.lab import eventually
from tests.kit.faulty_http import Answer, FaultyServer, Request

Database = Callable[[], PostgresStore]


@pytest.fixture
def dsn(new_database: Callable[..., str]) -> str:
    return new_database()


@pytest_asyncio.fixture(loop_scope="session")
async def database(dsn: str) -> AsyncIterator[Database]:
    opened = list[PostgresStore]()

    def store() -> PostgresStore:
        opened.append(PostgresStore("control", SecretStr(dsn), pool_size=4, application_name="test"))
        return opened[-1]

    await migrate_control(store())
    yield store
    for one in opened:
        await one.close()


async def graph_with(database: Database, tokens_per_day: int | None, slug: str = "world") -> Graph:
    rules = VectorRules(tokens_per_day=tokens_per_day)
    return await GraphRepository(database()).add(GraphDraft(slug=slug, vectors=rules))


class CountingService:
    """Counts the tokens of a text as one in three of its bytes and two, and tells what each request used."""

    name, dimensions = "counting", 2

    def __init__(self, *, tells: bool = True, seconds: float = 0.0) -> None:
        self.used: Callable[[Usage], None] | None = None
        self.tells, self.seconds = tells, seconds
        self.tokens = self.texts = self.requests = self.largest = 0
        self.failing: EmbeddingError | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        await asyncio.sleep(self.seconds * random.random())
        if self.failing is not None:
            if isinstance(self.failing, EmbeddingRejected):
                self._tell(Usage(texts=0, tokens=0, refused=len(texts)))
            raise self.failing
        tokens = sum(len(text.encode()) // 3 + 2 for text in texts)
        self.tokens += tokens
        self.texts += len(texts)
        self.requests += 1
        self.largest = max(self.largest, tokens)
        self._tell(Usage(texts=len(texts), tokens=tokens if self.tells else None))
        return np.ones((len(texts), 2), dtype=np.float32)

    async def close(self) -> None:
        pass

    def _tell(self, usage: Usage) -> None:
        if self.used is not None:
            self.used(usage)


def ledger_on(store: PostgresStore, *, service_budget: int | None = None, patience: float = 5) -> UsageLedger:
    return UsageLedger(store, tokens_per_day=service_budget, patience=patience)


@asynccontextmanager
async def cycle(
    ledger: UsageLedger, graph: Graph, service: EmbeddingService, run_id: str = "run", batch: int = 20
) -> AsyncIterator[tuple[MeteredEmbedding, CycleAccount]]:
    async with ledger.cycle(graph, slug=graph.slug, run_id=run_id, service=service, batch=batch) as entered:
        yield entered


async def total(store: PostgresStore, columns: str = "texts, tokens, requests") -> tuple[int, ...]:
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in columns.split(", "))
    async with store.driver() as connection:
        return tuple(await connection.fetchrow(f"SELECT {sums} FROM syncline.embedding_usage"))


async def spend(database: Database, graph: Graph, service: EmbeddingService, run_id: str, lanes: int) -> int:
    """Embed in lanes, as one worker does, until the budget is spent; return the requests that were refused."""
    ledger = ledger_on(database())
    refused = 0
    async with cycle(ledger, graph, service, run_id) as (embedding, _):

        async def lane(number: int) -> None:
            nonlocal refused
            texts = random.Random(f"{run_id} {number}")
            while True:
                words = ["word " * texts.randrange(1, 60) for _ in range(texts.randrange(1, 20))]
                try:
                    await embedding.embed(words)
                except EmbeddingBudgetSpent:
                    refused += 1
                    return
                except EmbeddingUnavailable:
                    continue

        await asyncio.gather(*map(lane, range(lanes)))
    return refused


@pytest.mark.parametrize("budget", [10_000, pytest.param(100_000, marks=pytest.mark.proof)])
async def test_three_workers_pass_a_budget_by_no_more_than_one_request(
    database: Database, budget: int
) -> None:
    graph = await graph_with(database, budget)
    services = [CountingService(seconds=0.004) for _ in range(3)]
    refused = await asyncio.gather(
        *(spend(database, graph, service, f"run-{n}", 4) for n, service in enumerate(services))
    )
    counted = [
        sum(getattr(service, name) for service in services) for name in ("texts", "tokens", "requests")
    ]
    assert sum(refused) == 12
    assert budget <= counted[1] < budget + max(service.largest for service in services)
    assert await total(database()) == tuple(counted)
    report = await read_usage(
        database(), graph, month=None, limit=10, budgets={("graph", str(graph.id)): ("world", budget)}
    )
    assert [(line.tokens, line.estimated) for line in report.months] == [(counted[1], 0)]
    assert sum(line.tokens for line in report.runs) == counted[1]
    # One may begin when all is spent.
    assert len(report.runs) == sum(service.requests > 0 for service in services)
    assert (report.budgets[0].used, report.budgets[0].held) == (counted[1], 0)


async def test_budgets_of_graphs_and_of_their_service_hold_at_once(database: Database) -> None:
    """Whoever reserves in one of them reserves in both, in one order: nobody waits for each other."""
    graphs = [await graph_with(database, 3_000, slug) for slug in ("a", "b")]
    services = [CountingService(seconds=0.002) for _ in range(4)]

    async def worker(graph: Graph, service: CountingService, run_id: str) -> None:
        ledger = ledger_on(database(), service_budget=5_000)

        async def lane() -> None:
            while True:
                try:
                    await embedding.embed(["word " * 20] * 4)
                except EmbeddingBudgetSpent:
                    return

        async with cycle(ledger, graph, service, run_id) as (embedding, _):
            await asyncio.gather(*(lane() for _ in range(3)))

    with capture_logs() as logs:
        await asyncio.gather(
            *(worker(graphs[n % 2], service, f"run-{n}") for n, service in enumerate(services))
        )
    assert logs == []
    largest = services[0].largest
    for of in (services[::2], services[1::2]):
        assert sum(service.tokens for service in of) < 3_000 + largest
    counted = sum(service.tokens for service in services)
    assert 5_000 <= counted < 5_000 + largest
    assert (await total(database(), "tokens"))[0] == counted


class CountingServer(FaultyServer):
    """Counts what it charges for, and refuses one request in ten."""

    def __init__(self, seconds: float = 0) -> None:
        super().__init__(respond=self._counted)
        self._seconds = seconds
        self.texts = self.tokens = self.refused = self.largest = 0

    def _counted(self, request: Request) -> Answer:
        texts = json.loads(request.body)["input"]
        if len(self.requests) % 10 == 0:
            self.refused += len(texts)
            return Answer(503, b'{"error": {"message": "overloaded"}}')
        tokens = sum(len(text.encode()) // 3 + 2 for text in texts)
        self.texts, self.tokens = self.texts + len(texts), self.tokens + tokens
        self.largest = max(self.largest, tokens)
        data = [{"index": index, "embedding": [1.0, 2.0]} for index in range(len(texts))]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = json.dumps({"data": data, "usage": usage}).encode()
        return Answer(body=body, silence_seconds=self._seconds)


@pytest.mark.parametrize("budget", [10_000, pytest.param(100_000, marks=pytest.mark.proof)])
async def test_the_ledger_is_what_the_service_has_counted(database: Database, budget: int) -> None:
    graph = await graph_with(database, budget)
    with CountingServer() as server:
        services = [OpenAIEmbedding(server.url, "small", 2, timeout_seconds=5) for _ in range(3)]
        await asyncio.gather(
            *(spend(database, graph, service, f"run-{n}", 2) for n, service in enumerate(services))
        )
        for service in services:
            await service.close()
    assert budget <= server.tokens < budget + server.largest
    found = await total(database(), "texts, tokens, estimated, requests, refused")
    assert found == (server.texts, server.tokens, 0, len(server.requests), server.refused)


SPENDING = """
import asyncio, sys
from uuid import UUID
from pydantic import SecretStr
from syncline.control.graphs import GraphRepository
from syncline.control.usage import UsageLedger
from syncline.embeddings.openai import OpenAIEmbedding
from syncline.errors import EmbeddingBudgetSpent, EmbeddingUnavailable
from syncline.stores.postgres import PostgresStore

async def main(dsn, url, run_id):
    store = PostgresStore("control", SecretStr(dsn), pool_size=3, application_name=run_id)
    graph = await GraphRepository(store).get("world")
    service = OpenAIEmbedding(url, "small", 2, timeout_seconds=5)
    ledger = UsageLedger(store, tokens_per_day=None, patience=1)
    async with ledger.cycle(graph, slug="world", run_id=run_id, service=service, batch=20) as (embedding, _):
        async def lane():
            while True:
                try:
                    await embedding.embed(["word " * 30] * 10)
                except EmbeddingBudgetSpent:
                    return
                except EmbeddingUnavailable:
                    pass
        await asyncio.gather(lane(), lane())

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.proof
async def test_workers_that_are_killed_and_started_again_pass_a_budget_by_no_more_than_one_request(
    database: Database, dsn: str
) -> None:
    """What a killed one had under way counts with all that it can have cost."""
    await graph_with(database, 15_000)
    with CountingServer(seconds=0.02) as server:

        async def at_work(before: int) -> bool:
            return len(server.requests) >= before + 4

        async def worker(number: int, *, dies: bool) -> None:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SPENDING, dsn, server.url, f"run-{number}"
            )
            if dies:
                before = len(server.requests)
                await eventually(lambda: at_work(before))
                process.kill()
            await process.wait()

        await asyncio.gather(*(worker(number, dies=True) for number in range(3)))
        killed_at = server.tokens
        await asyncio.gather(*(worker(number, dies=False) for number in range(3, 6)))
    assert 0 < killed_at < 15_000
    assert server.tokens < 15_000 + server.largest
    texts, tokens = await total(database(), "texts, tokens")
    assert texts <= server.texts
    assert tokens <= server.tokens


async def test_a_cycle_waits_for_a_spent_budget_and_goes_on_when_it_is_raised(
    database: Database, graph: TestGraph
) -> None:
    record, service = await graph_with(database, 60), CountingService()
    graph.embedding = service
    await write(
        graph,
        "INSERT INTO write_facts (id, content, dedup_status)"
        " SELECT 'f' || i, repeat('x', 30) || i, 'ready' FROM generate_series(1, 20) i",
    )
    retry = RetryRules(vector_seconds=0)

    async def vectors(rules: Graph) -> VectorProgress:
        async with cycle(ledger_on(database()), rules, service, batch=4) as (embedding, _):
            return (await run_cycle(replace(graph.context(), embedding=embedding, retry=retry))).vectors

    first, second = await vectors(record), await vectors(record)
    sent = service.requests
    for found in (first, second):
        assert found.budget_spent
        assert found.refused == 0
        assert "graph 'world' has used" in (found.error or "")
    assert await vectors(record)
    assert service.requests == sent
    raised = await GraphRepository(database()).update(
        record.id, GraphChanges(vectors=VectorRules(tokens_per_day=10_000))
    )
    last = await vectors(raised)
    assert (last.pending, last.error, last.budget_spent) == (0, None, False)


async def test_a_spent_budget_sends_nothing_says_until_when_and_ends_when_it_is_raised(
    database: Database,
) -> None:
    graph, service = await graph_with(database, 100), CountingService()
    async with cycle(ledger_on(database()), graph, service) as (embedding, account):
        await embedding.embed(["x" * 300])
        with pytest.raises(
            EmbeddingBudgetSpent, match="graph 'world' has used 102 of its 100 tokens"
        ) as spent:
            await embedding.embed(["more"])
    assert spent.value.retryable
    assert spent.value.retry_at.time().isoformat() == "00:00:00"
    assert "--tokens-per-day" in str(spent.value)
    used = account.result()
    assert used is not None
    assert (used.requests, used.tokens, used.today, used.budget) == (1, 102, 102, 100)
    graphs = GraphRepository(database())
    graph = await graphs.update(graph.id, GraphChanges(vectors=VectorRules(tokens_per_day=200)))
    async with cycle(ledger_on(database()), graph, service) as (embedding, _):
        await embedding.embed(["more"])
    assert service.requests == 2
    async with database().driver() as connection:
        await connection.execute("UPDATE syncline.embedding_days SET day = day - 1, tokens = 10000")
    async with cycle(ledger_on(database()), graph, service) as (embedding, _):
        await embedding.embed(["the next day"])


async def test_a_budget_of_the_service_is_one_for_all_graphs(database: Database) -> None:
    service = CountingService()
    for slug in ("a", "b"):
        graph = await graph_with(database, None, slug)
        async with cycle(ledger_on(database(), service_budget=100), graph, service) as (embedding, _):
            if slug == "a":
                await embedding.embed(["x" * 300])
            else:
                with pytest.raises(EmbeddingBudgetSpent, match="the service has used 102") as spent:
                    await embedding.embed(["x"])
                assert spent.value.scope == "service"
    assert service.requests == 1


async def test_a_request_that_is_never_answered_counts_as_much_as_it_can_have_cost(
    database: Database,
) -> None:
    """Its tokens are estimated in the ledger; the budget holds the most that they can be."""
    graph, service = await graph_with(database, 200), CountingService()
    async with cycle(ledger_on(database()), graph, service) as (embedding, _):
        service.failing = EmbeddingUnavailable("counting", "no answer.", unanswered=True)
        with pytest.raises(EmbeddingUnavailable):
            await embedding.embed(["x" * 196])
        service.failing = None
        with pytest.raises(EmbeddingBudgetSpent, match="200 of its 200"):
            await embedding.embed(["x"])
    assert await total(database(), "requests, texts, refused, tokens, estimated") == (1, 0, 1, 49, 49)


async def test_what_a_service_refuses_or_cannot_be_asked_costs_nothing(database: Database) -> None:
    graph, service = await graph_with(database, 100), CountingService()
    async with cycle(ledger_on(database()), graph, service) as (embedding, _):
        for failing in (
            EmbeddingUnavailable("counting", "not reached."),
            EmbeddingRejected("counting", "no."),
        ):
            service.failing = failing
            with pytest.raises(type(failing)):
                await embedding.embed(["x" * 300, "y"])
        service.failing = None
        await embedding.embed(["x" * 300])
    assert await total(database(), "requests, texts, refused, tokens") == (2, 1, 2, 102)


async def test_a_worker_that_died_holds_what_it_reserved_and_keeps_nobody_waiting(database: Database) -> None:
    graph, service = await graph_with(database, 500), CountingService()
    gone = ledger_on(database())
    async with cycle(gone, graph, service) as (_, account):
        await account.reserve(500)
        started = asyncio.get_running_loop().time()
        async with cycle(ledger_on(database(), patience=0.2), graph, service) as (embedding, _):
            with pytest.raises(EmbeddingBudgetSpent):
                await embedding.embed(["x"])
        assert asyncio.get_running_loop().time() - started < 20


async def test_without_a_budget_nothing_is_asked_and_bookings_are_collected(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, service, store = await graph_with(database, None), CountingService(tells=False), database()
    ledger = ledger_on(store)
    opened = 0
    driver = PostgresStore.driver

    def counted(self: PostgresStore) -> object:
        nonlocal opened
        opened += self is store
        return driver(self)

    monkeypatch.setattr(PostgresStore, "driver", counted)
    async with cycle(ledger, graph, service):
        pass
    assert opened == 0
    with pytest.raises(ZeroDivisionError):
        async with cycle(ledger, graph, service) as (embedding, _):
            for _ in range(10):
                await embedding.embed(["twelve bytes"] * 3)
            raise ZeroDivisionError
    assert opened == 1
    assert await total(database(), "texts, tokens, estimated, requests") == (30, 90, 90, 10)


async def test_bookings_wait_while_the_control_plane_is_away(database: Database) -> None:
    graph, service, store = await graph_with(database, None), CountingService(), database()
    ledger = ledger_on(store)
    async with database().driver() as connection:
        await connection.execute("ALTER TABLE syncline.embedding_usage RENAME TO away")
        async with cycle(ledger, graph, service) as (embedding, account):
            await embedding.embed(["x"])
        used = account.result()
        assert used is not None
        assert (used.requests, used.today) == (1, None)
        await connection.execute("ALTER TABLE syncline.away RENAME TO embedding_usage")
    await ledger.close()
    assert await total(database()) == (1, 2, 1)


async def test_old_runs_are_summed_by_month(database: Database) -> None:
    graph, service = await graph_with(database, None), CountingService()
    for run_id in ("one", "two", "three"):
        async with cycle(ledger_on(database()), graph, service, run_id) as (embedding, _):
            await embedding.embed(["x"])
        if run_id != "three":
            async with database().driver() as connection:
                statement = "UPDATE syncline.embedding_usage SET last_at = last_at - $1::interval"
                await connection.execute(statement, timedelta(days=40))
    async with database().driver() as connection:
        rows = await connection.fetch(
            "SELECT run_id, requests, tokens FROM syncline.embedding_usage ORDER BY 1"
        )
    assert [tuple(row) for row in rows] == [("", 2, 4), ("three", 1, 2)]
    report = await read_usage(database(), graph, month=None, limit=10, budgets={})
    assert ([line.requests for line in report.months], [line.run_id for line in report.runs]) == (
        [3],
        ["three"],
    )
