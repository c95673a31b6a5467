"""The conformance suite: the built-in provider passes it, and whoever breaks one rule is told which."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from providers.default import DefaultSyncProvider
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.engine import run_cycle
from syncline.messages.sync import CycleStatus, SyncResult, VectorProgress
from syncline.provider import ProviderServices, SyncContext, SyncProvider
from syncline.testing import exercise_provider
from syncline.testing.conformance import Nonconforming, Subject, try_item
from syncline.testing.conformance.items import ITEMS
from tests.kit.cases import further

BUILT_IN = {"entry-point": "the application registers it"}
test_the_built_in_provider_conforms = pytest.mark.long(after=8)(
    exercise_provider(DefaultSyncProvider, without=BUILT_IN)
)


class Engine(SyncProvider):
    """The built-in engine. Each class below spoils one thing of it."""

    id = "bad"
    version = "1.0"
    api_version = 1

    async def initialize(self, services: ProviderServices) -> None: ...

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        return await run_cycle(context)

    async def close(self) -> None: ...


async def on_target(context: SyncContext, *statements: str) -> None:
    async with context.target.store.driver() as connection:
        for statement in ("SET search_path = kg", *statements, "RESET search_path"):
            await connection.execute(statement)


class TellsRows(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        async with context.target.store.driver() as connection:
            told = await connection.fetchval("SELECT definition FROM kg.nodes WHERE key = 'quiet'")
        return result.model_copy(update={"vectors": VectorProgress(refusal=told)})


class ThinksItIsDone(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        if context.run.attempt > 1:
            return SyncResult(status=CycleStatus.DRAINED)
        return await run_cycle(context)


class HurriesOn(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        async with context.write.store.driver() as connection:
            newest = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        await on_target(
            context,
            f"INSERT INTO sync_cursor VALUES ('nodes', {newest})"
            " ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = NULL",
        )
        return result


class CutsTies(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        if context.budget.batch_rows < 10:
            await on_target(context, "DELETE FROM nodes WHERE key = 'n100'")
        return result


class KeepsTheDeleted(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        async with context.write.store.driver() as connection:
            await connection.execute("DELETE FROM kg.sync_tombstone")
        return await run_cycle(context)


class Forgets(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        await on_target(context, "DELETE FROM edges WHERE key = (SELECT min(key) FROM edges)")
        return result


class DropsChildren(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        await on_target(context, "DELETE FROM sync_parked_row")
        return result


class HidesRefusals(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        return result.model_copy(update={"failures": 0, "dead_letters": 0})


class PretendsVectors(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        return result.model_copy(update={"status": CycleStatus.DRAINED, "vectors": VectorProgress()})


class SwallowsCancellation(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        try:
            return await run_cycle(context)
        except asyncio.CancelledError:
            return SyncResult(status=CycleStatus.BUDGET_SPENT)


class IsSilent(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        return await run_cycle(replace(context, heartbeat=lambda _: None))


class Blocks(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        if context.budget.batch_rows == 10:
            time.sleep(2.1)  # noqa: ASYNC251 - what it is bad at
        return result


class WritesAgain(Engine):
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        result = await run_cycle(context)
        await on_target(context, "UPDATE nodes SET concept = concept WHERE key = 'n1'")
        return result


class PreparesOnce(Engine):
    async def prepare(self, context: SyncContext) -> None:
        await on_target(context, "CREATE TABLE notes (key text PRIMARY KEY)")


class Prepares(Engine):
    """A provider with a table of its own, which its cycles need."""

    async def prepare(self, context: SyncContext) -> None:
        async with context.target.store.driver() as connection:
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {context.target.schema}.notes (at timestamptz)"
            )

    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        async with context.target.store.driver() as connection:
            await connection.execute(f"INSERT INTO {context.target.schema}.notes VALUES (now())")
        return await run_cycle(context)


@dataclass
class Bench:
    """Tries a provider for an item, and returns what it is told, if it fails."""

    server: EmbeddedPostgres
    new_database: Callable[[str], str]
    folder: Path

    def told(self, provider: Callable[[], SyncProvider], item: str) -> str | None:
        folder = self.folder / item
        try:
            try_item(item, Subject(make=provider, options={}), self.server, self.new_database, folder)
        except Nonconforming as refused:
            return str(refused)
        return None


@pytest.fixture
def bench(postgres_server: EmbeddedPostgres, new_database: Callable[[str], str], tmp_path: Path) -> Bench:
    return Bench(postgres_server, new_database, tmp_path)


BAD = [
    (TellsRows, "contract", "expected no row's values in results and heartbeats, but a row's text"),
    (ThinksItIsDone, "resume-after-kill", "had been killed, but "),
    (HurriesOn, "late-commits", "committed last, but nodes: missing"),
    (CutsTies, "ties", "in batches of 7, but nodes: missing"),
    (KeepsTheDeleted, "deletes", "a table was truncated, but "),
    (DropsChildren, "parked-children", "after the parents had come, but "),
    (
        HidesRefusals,
        "poison-rows",
        "expected the result to tell of a row that was refused, but it told of no failure",
    ),
    (
        PretendsVectors,
        "qdrant-down",
        "expected the result to tell that vectors wait, and why, but the status was drained",
    ),
    (
        SwallowsCancellation,
        "cancellation",
        "expected a cancelled cycle to end with CancelledError, but it returned",
    ),
    (IsSilent, "heartbeat", "but it called context.heartbeat not once"),
    (Blocks, "heartbeat", "expected the event loop to stay free, but it was blocked for "),
    (WritesAgain, "idempotence", "expected a second cycle to change nothing, but it wrote rows"),
    (PreparesOnce, "preparation", "expected prepare to succeed, however often it is called, but it raised"),
    (Forgets, "comparison", "after a cycle, but edges: missing"),
    (Engine, "entry-point", "expected an installed entry point to make it, but none does"),
    (Engine, "temporal", "expected a worker to find the provider, but it has ['default']"),
]


@pytest.mark.long(after=4)
@pytest.mark.parametrize(("provider", "item", "reason"), BAD, ids=[provider.__name__ for provider, *_ in BAD])
def test_a_bad_provider_fails_its_item_and_is_told_why(
    bench: Bench, provider: type[Engine], item: str, reason: str
) -> None:
    told = bench.told(provider, item)
    assert told is not None
    assert told.startswith(f"Provider 'bad' 1.0, {item}: expected ")
    assert reason in told
    assert told.endswith(f". {ITEMS[item].advice}.")


@pytest.mark.parametrize(
    ("provider", "item"),
    [(TellsRows, "contract"), *further(*((provider, item) for provider, item, _ in BAD[1:]))],
    ids=[provider.__name__ for provider, *_ in BAD],
)
def test_a_bad_provider_is_not_just_bad_at_everything(
    bench: Bench, provider: type[Engine], item: str
) -> None:
    assert bench.told(provider, "late-commits" if item != "late-commits" else "ties") is None


def test_every_item_has_somebody_who_fails_it() -> None:
    assert {item for _, item, _ in BAD} == set(ITEMS)


def test_tables_of_a_provider_are_prepared(bench: Bench) -> None:
    assert bench.told(Prepares, "preparation") is None


def test_what_is_left_out_is_skipped_with_its_reason() -> None:
    exercised = exercise_provider(Engine, without={"qdrant-down": "it writes no vectors"})
    [parametrized] = exercised.pytestmark  # type: ignore[attr-defined]
    left_out = {case.id: case.marks[0].kwargs["reason"] for case in parametrized.args[1] if case.marks}
    assert left_out == {"qdrant-down": "it writes no vectors"}
    with pytest.raises(ValueError, match="no item is named vectors; items are entry-point, "):
        exercise_provider(Engine, without={"vectors": "a typing error"})


def test_an_error_of_the_provider_is_told_with_its_name(bench: Bench) -> None:
    class Fails(Engine):
        async def sync_cycle(self, context: SyncContext) -> SyncResult:
            raise KeyError("gone")

    assert "the cycle raised KeyError: 'gone' (at tests/integration/test_conformance.py:" in str(
        bench.told(Fails, "ties")
    )


def test_what_is_no_provider_is_told_by_the_registry(bench: Bench) -> None:
    class OfTomorrow(Engine):
        api_version = 99

    told = str(bench.told(OfTomorrow, "contract"))
    assert "expected it to be registered, but " in told
    assert "api_version 99" in told
