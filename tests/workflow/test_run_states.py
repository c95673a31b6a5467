"""Eighteen runs with failures, worker restarts and a provider that comes and goes: each state of each, by query."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import asyncpg
import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from activities.sync import SyncActivities
from syncline import names
from syncline.control.graphs import Graph, GraphChanges
from syncline.errors import StoreRejected
from syncline.messages.provider_state import OutageEnded, OutageKind
from syncline.messages.sync import (
    CycleProgress,
    ProviderResolution,
    ResolveProviderRequest,
    RunPhase,
    SyncResult,
    SyncState,
    TableProgress,
)
from syncline.provider import SyncContext
from syncline.temporal.runs import outcome_of, run_of
from syncline.testing.lab import Run, SyncLab
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.gate import Gate
from tests.workflow.test_carried_state import SELDOM, scheduled
from tests.workflow.test_replay import replay
from tests.workflow.test_routing import Fleet
from worker import serving


class Resolving(SyncActivities):
    """Resolution waits for the test, and may fail first."""

    def __init__(self, *given: object, scene: "Scene", **named: object) -> None:
        super().__init__(*given, **named)
        self._scene = scene

    @activity.defn(name=names.RESOLVE_PROVIDER)
    async def resolve_provider(self, request: ResolveProviderRequest) -> ProviderResolution:
        self._scene.asked.open()
        if self._scene.away:
            raise ApplicationError("the control plane cannot be reached", type="StoreUnavailable")
        await self._scene.answer.wait()
        return await super().resolve_provider(request)


@dataclass
class Scene:
    """What the worker of the moment does, and how to replace it."""

    fleet: Fleet
    asked: Gate = field(default_factory=Gate)
    answer: Gate = field(default_factory=Gate)
    away: bool = False
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    started: int = 0

    async def restart(self, *plugins: FakeProvider) -> None:
        """Replace the worker by one that has these plugins."""
        await self.stack.aclose()
        self.stack, self.started = AsyncExitStack(), self.started + 1
        await self.stack.enter_async_context(self._process(f"worker@host:{self.started}", *plugins))

    @asynccontextmanager
    async def _process(self, identity: str, *plugins: FakeProvider) -> AsyncIterator[None]:
        client = await self.fleet.client(identity)
        async with self.fleet.services(identity, *plugins) as services:
            activities = Resolving(services, scene=self, beat_seconds=0.2)
            async with serving(client, services, activities):
                await self.fleet.knows(identity)
                yield


@pytest.fixture
async def scene(idle_lab: SyncLab, tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(Fleet(idle_lab, tmp_path))
    yield scene
    await scene.stack.aclose()


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a run says of itself at its end, and the next one until it has resolved. Numbers are of runs."""

    fallback: int = 0
    """Runs in a row."""
    since: int | None = None
    resolved: int
    """The run that found that out."""
    runs: int
    failed: int
    rows: int
    back: tuple[int, int] | None = None
    """The last return: the run in which it was, and the one since which nobody had served the graph."""


NOTHING = Row(resolved=0, runs=0, failed=0, rows=0)


@dataclass
class Told:
    """The runs so far: their ids, and when each says that its stretch of fallback began and that it ended."""

    ids: dict[str, int] = field(default_factory=dict)
    since: dict[datetime, int] = field(default_factory=dict)
    back: dict[datetime, int] = field(default_factory=dict)

    def row(self, state: SyncState) -> Row:
        """Return what a state says."""
        provider, carried = state.provider, state.carried
        assert (provider.fallback_since, provider.consecutive_fallback_runs, provider.last_return) == (
            carried.first_fallback_at,
            carried.consecutive_fallback_runs,
            carried.last_return,
        )
        assert (provider.fallback is not None) == (carried.consecutive_fallback_runs > 0)
        return Row(
            fallback=carried.consecutive_fallback_runs,
            since=None if carried.first_fallback_at is None else self.since[carried.first_fallback_at],
            resolved=0 if provider.of_run is None else self.ids[provider.of_run],
            runs=carried.totals.runs,
            failed=carried.totals.failed,
            rows=carried.totals.rows,
            back=None if carried.last_return is None else self._return(carried.last_return),
        )

    def _return(self, returned: OutageEnded) -> tuple[int, int]:
        assert returned.away.how is OutageKind.FALLBACK
        return self.back[returned.at], self.since[returned.away.since]

    def note(self, number: int, state: SyncState) -> None:
        """Note what this run is the first to tell."""
        if state.carried.first_fallback_at is not None:
            self.since.setdefault(state.carried.first_fallback_at, number)
        if state.carried.last_return is not None:
            self.back.setdefault(state.carried.last_return.at, number)


async def run_id_of(run: Run) -> str:
    return (await run.describe()).run_id


class Story:
    """The graph, its stores, and what is done to them for the next run."""

    def __init__(self, scene: Scene, graph: Graph) -> None:
        self.scene, self.graph, self.lab = scene, graph, scene.fleet.lab
        self.told = Told()
        self.number, self.last = 0, NOTHING
        self.results: list[SyncResult | Exception] = []
        self.nodes, self.entered = 0, Gate()

    def acme(self) -> FakeProvider:
        """The provider, which does what `results` says, having committed four rows before it raises.

        Without a result its cycle does not end.
        """

        async def cycle(context: SyncContext) -> SyncResult:
            if not self.results:
                self.entered.open()
                await asyncio.Event().wait()
            result = self.results.pop(0)
            if isinstance(result, Exception):
                table = TableProgress(table="nodes", captured=4, rows=4)
                context.heartbeat(CycleProgress(phase="capture", tables=(table,)))
                raise result
            return result

        return FakeProvider("acme", cycle=cycle)

    async def write(self) -> None:
        """Write a node, which the next cycle of the built-in engine brings."""
        self.nodes += 1
        await self.at_the_writers(
            f"INSERT INTO {self.graph.schema_name}.write_nodes (id, concept) VALUES ('n{self.nodes}', 'N')"
        )

    async def break_a_table(self, *, broken: bool) -> None:
        """Take a column away from the write-db, or give it back."""
        old, new = ("content", "gone") if broken else ("gone", "content")
        await self.at_the_writers(f"ALTER TABLE {self.graph.schema_name}.write_facts RENAME {old} TO {new}")

    async def break_the_schema(self, *, broken: bool) -> None:
        """Take the schema away from the graph-db, or give it back."""
        name = self.graph.schema_name
        old, new = (name, f"{name}_gone") if broken else (f"{name}_gone", name)
        await self.at_the_graph(f"ALTER SCHEMA {old} RENAME TO {new}")

    async def archive(self, *, archived: bool) -> None:
        """Have resolution refuse the graph, or not."""
        status = "archived" if archived else "active"
        await self.lab.services.graphs.update(self.graph.slug, GraphChanges(status=status))

    async def at_the_writers(self, statement: str) -> None:
        """Do this to the write-db."""
        await self._execute(self.lab.services.settings.write_dsn.get_secret_value(), statement)

    async def at_the_graph(self, statement: str) -> None:
        """Do this to the graph-db."""
        await self._execute(self.lab.services.settings.graph_dsn.get_secret_value(), statement)

    async def _execute(self, dsn: str, statement: str) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(statement)
        await connection.close()

    async def begins(self, run: Run) -> None:
        """Ask the run while it resolves: it knows what the one before it has told."""
        self.number += 1
        self.told.ids[await run_id_of(run)] = self.number
        await self.scene.asked.wait()
        state = await self.lab.state(run)
        assert (state.phase, state.resolved) == (RunPhase.RESOLVING, False), self.number
        assert self.told.row(state) == self.last, self.number
        fallback = "> **Fallback** to the built-in engine since 2" in await self.lab.details(run)
        assert fallback == (self.last.fallback > 0), self.number

    async def ends(self, run: Run, row: Row, failure: str | None) -> None:
        """Ask the run after its end, and what Temporal keeps of it: both say what this row does."""
        self.scene.answer.open()
        if failure is None:
            await run.result()
        else:
            assert (await self.lab.failure(run)).type == failure, self.number
        state = await self.lab.state(run)
        self.told.note(self.number, state)
        assert self.told.row(state) == row, self.number
        assert state.resolved == (row.resolved == self.number)
        assert self.told.ids[state.carried.of_run or ""] == self.number
        listed = await run_of(self.lab.client, run.id, await run_id_of(run))
        kept = (await outcome_of(self.lab.client, listed)).state(listed)
        assert (kept.carried, kept.resolved) == (state.carried, state.resolved), self.number
        assert self.told.row(kept) == row, self.number
        self.last = row


@pytest.mark.long(
    "workflow/test_operator_commands.py::test_every_graph_is_listed_with_what_it_is_doing_trouble_first"
)
async def test_every_state_of_eighteen_runs(scene: Scene) -> None:
    lab = scene.fleet.lab
    story = Story(scene, await scene.fleet.graph(prepare=True, schedule=SELDOM))
    runs = await scheduled(lab, story.graph)
    histories: list[Run] = []

    async def begin() -> Run:
        scene.asked, scene.answer = Gate(), Gate()
        run = await runs.next()
        histories.append(run)
        await story.begins(run)
        return run

    async def one(row: Row, failure: str | None = None) -> Run:
        run = await begin()
        await story.ends(run, row, failure)
        return run

    # Nobody has the provider.
    await scene.restart()
    await story.write()
    await one(Row(fallback=1, since=1, resolved=1, runs=1, failed=0, rows=1))
    await one(Row(fallback=2, since=1, resolved=2, runs=2, failed=0, rows=1))
    await scene.restart()
    await story.write()
    await story.break_a_table(broken=True)
    await one(Row(fallback=3, since=1, resolved=3, runs=3, failed=1, rows=2), "CycleFailed")
    await story.break_a_table(broken=False)
    await story.break_the_schema(broken=True)
    await one(Row(fallback=4, since=1, resolved=4, runs=4, failed=2, rows=2), "StoreRejected")
    await story.break_the_schema(broken=False)
    await story.archive(archived=True)
    await one(Row(fallback=4, since=1, resolved=4, runs=5, failed=3, rows=2), "GraphInvalid")
    await story.archive(archived=False)

    # A transport error while it resolves; terminated, it hands nothing on.
    scene.away = True
    await (await begin()).terminate()
    # The same, until another worker gets through.
    run = await begin()
    await story.write()
    await scene.restart()
    scene.away = False
    await story.ends(run, Row(fallback=5, since=1, resolved=7, runs=6, failed=3, rows=3), None)

    # By hand in between, which knows of none of them, and says so.
    by_hand = await lab.start(story.graph)
    own = (await by_hand.result()).carried
    assert (own.totals.runs, own.consecutive_fallback_runs, own.after_run) == (1, 1, None)
    assert "Counted from this run: it knows of no earlier one." in await lab.details(by_hand)

    # It comes, and its first cycle fails.
    await scene.restart(story.acme())
    story.results = [sync_result(rows=2, error="column gone"), sync_result(rows=3)]
    await one(Row(resolved=8, runs=7, failed=4, rows=5), "CycleFailed")
    await one(Row(resolved=9, runs=8, failed=4, rows=8, back=(9, 1)))

    # Cancelled in its cycle, a run hands nothing on either.
    run = await begin()
    scene.answer.open()
    await story.entered.wait()
    await run.cancel()
    with pytest.raises(WorkflowFailureError):
        await run.result()

    # It goes.
    await scene.restart()
    back = (9, 1)
    await one(Row(fallback=1, since=11, resolved=11, runs=9, failed=4, rows=8, back=back))
    await story.archive(archived=True)
    await one(Row(fallback=1, since=11, resolved=11, runs=10, failed=5, rows=8, back=back), "GraphInvalid")
    await story.archive(archived=False)
    await story.break_a_table(broken=True)
    await one(Row(fallback=2, since=11, resolved=13, runs=11, failed=6, rows=8, back=back), "CycleFailed")
    await story.break_a_table(broken=False)

    # It comes, which a run that cannot resolve does not know; then its cycle raises.
    await scene.restart(story.acme())
    await story.archive(archived=True)
    await one(Row(fallback=2, since=11, resolved=13, runs=12, failed=7, rows=8, back=back), "GraphInvalid")
    await story.archive(archived=False)
    story.results = [StoreRejected("graph", "no such table", sqlstate="42P01"), sync_result(rows=1)]
    await one(Row(resolved=15, runs=13, failed=8, rows=12, back=back), "StoreRejected")

    # It goes before a cycle of it has succeeded, comes and goes again.
    await scene.restart()
    await one(Row(fallback=1, since=16, resolved=16, runs=14, failed=8, rows=12, back=back))
    await scene.restart(story.acme())
    await one(Row(resolved=17, runs=15, failed=8, rows=13, back=(17, 16)))
    await scene.restart()
    await one(Row(fallback=1, since=18, resolved=18, runs=16, failed=8, rows=13, back=(17, 16)))
    assert len(histories) == 18
    for run in histories:
        await replay((await run.fetch_history()).to_json())
