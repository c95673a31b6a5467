"""A plugin is rolled out and back, worker by worker, while graphs are written to and run: what each saw of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.client import Client, WorkflowExecutionStatus

from syncline import names
from syncline.control.graphs import GraphChanges
from syncline.control.services import Services
from syncline.devstack.postgres import EmbeddedPostgres
from syncline.settings import Settings
from tests.acceptance.rolling import (
    DEFAULT,
    FAILS,
    FALLS_BACK,
    GRAPHS,
    HOLDS,
    ON_MISSING,
    PLUGIN,
    STEADY,
    Fleet,
    Run,
    Span,
    Worker,
    add_graphs,
    announcements,
    fleet_environment,
    patiently,
    recorded,
    rows,
    write_plugin,
    writing,
)
from tests.kit.wheels import build_wheel, make_environment, uninstall

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]

QUEUE = "rolling"


@dataclass(frozen=True, kw_only=True)
class Story:
    """What happened: the workers as they became ready, the runs in the order of their starts."""

    workers: Sequence[Worker]
    runs: Sequence[Run]
    announced: Mapping[int, Sequence[datetime]]
    """pid of a worker -> when the control plane was first and last seen to know of it."""
    behind: Mapping[str, int]
    """Graph -> rows that it lacked while nobody had the plugin and nobody wrote any more."""
    written: Mapping[str, Mapping[str, str]]
    landed: Mapping[str, Mapping[str, str]]
    """Graph -> its rows in the write-db and in the graph-db, at the end."""

    def worker(self, name: str) -> Worker:
        [found] = [worker for worker in self.workers if worker.name == name]
        return found

    def of(self, graph: str) -> list[Run]:
        return [run for run in self.runs if run.graph == graph]

    @property
    def served(self) -> list[Span]:
        """When a worker with the plugin was there for sure: announced, ready and not yet told to stop."""
        return self._joined(surely=True)

    @property
    def perhaps_served(self) -> list[Span]:
        """When one may have been there: from its start to its end."""
        return self._joined(surely=False)

    def _joined(self, *, surely: bool) -> list[Span]:
        joined: list[Span] = []
        for worker in self.workers:
            if not worker.has_plugin:
                continue
            assert worker.draining is not None
            assert worker.ended is not None
            known = self.announced[worker.process.process.pid]
            began = max(worker.ready, known[0]) if surely else worker.started
            ended = min(worker.draining, known[1]) if surely else worker.ended
            if joined and began <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(ended, joined[-1][1]))
            else:
                joined.append((began, ended))
        return joined


def within(span: Span, spans: Sequence[Span]) -> bool:
    return any(began <= span[0] and span[1] <= ended for began, ended in spans)


def apart(span: Span, spans: Sequence[Span]) -> bool:
    return all(span[1] < began or ended < span[0] for began, ended in spans)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def services(
    postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Services]:
    for side in ("write", "graph"):
        postgres_server.ensure_database(f"rolling_{side}")
    settings = Settings(
        write_dsn=SecretStr(postgres_server.dsn("rolling_write")),
        graph_dsn=SecretStr(postgres_server.dsn("rolling_graph")),
        qdrant_path=tmp_path_factory.mktemp("rolling") / "qdrant",
        task_queue=QUEUE,
        pool_size=4,
    )
    async with Services.open(settings) as opened:
        await opened.prepare_control()
        await add_graphs(opened)
        yield opened


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The old environment's Python, and that of a new one, which has the plugin too."""
    folder = tmp_path_factory.mktemp("environments")
    wheel = build_wheel(write_plugin(folder / "plugin"), folder / "wheels")
    old, new = (make_environment(folder / name, wheel) for name in ("old", "new"))
    uninstall(old, PLUGIN)
    return old, new


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def story(
    services: Services,
    environments: tuple[Path, Path],
    temporal_client: Client,
    temporal_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Story]:
    """Roll the plugin out and back; then give the graphs that still wait for it another provider."""
    old, new = environments
    folder = tmp_path_factory.mktemp("workers")
    write_dsn, graph_dsn = (
        dsn.get_secret_value() for dsn in (services.settings.write_dsn, services.settings.graph_dsn)
    )

    async def both(graph: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return (
            await rows(write_dsn, graph, "write_raw_sources", "id"),
            await rows(graph_dsn, graph, "raw_sources", "key"),
        )

    async def caught_up(*graphs: str) -> None:
        async def equal() -> bool:
            return all(wanted == found for wanted, found in [await both(graph) for graph in graphs])

        await patiently(equal)

    async with AsyncExitStack() as stack:
        announced = await stack.enter_async_context(announcements(graph_dsn))
        fleet = Fleet(
            client=temporal_client,
            environment=fleet_environment(services, temporal_environment, folder),
            folder=folder,
            task_queue=QUEUE,
            stack=stack,
        )
        async with writing(write_dsn):
            one, two = await asyncio.gather(
                fleet.start("one", old, has_plugin=False), fleet.start("two", old, has_plugin=False)
            )
            await fleet.further_runs(1)
            # Rolled out: one has it, then both.
            three = await fleet.start("three", new, has_plugin=True)
            await fleet.stop(one)
            four, _ = await asyncio.gather(fleet.start("four", new, has_plugin=True), fleet.further_runs(1))
            await fleet.stop(two)
            await fleet.further_runs(2)
            # Rolled back: the other still has it, then nobody.
            five = await fleet.start("five", old, has_plugin=False)
            await fleet.stop(three)
            uninstall(new, PLUGIN)
            six, _ = await asyncio.gather(fleet.start("six", new, has_plugin=False), fleet.further_runs(1))
            await fleet.stop(four)
            await fleet.further_runs(2)
        await caught_up(STEADY, FALLS_BACK)
        behind = {
            graph: len(wanted) - len(found) for graph in GRAPHS for wanted, found in [await both(graph)]
        }
        for graph in (HOLDS, FAILS):
            await services.graphs.update(graph, GraphChanges(composition={"sync": DEFAULT}))
        await caught_up(*GRAPHS)
        # First who would make the others again.
        await temporal_client.get_schedule_handle(names.reconcile_schedules_id(QUEUE)).delete()
        await fleet.idle(names.RECONCILE_SCHEDULES)
        for graph in GRAPHS:
            await temporal_client.get_schedule_handle(names.sync_schedule_id(graph)).delete()
        await fleet.idle(names.SYNC_GRAPH)
        await asyncio.gather(fleet.stop(five), fleet.stop(six))
        ended = {graph: await both(graph) for graph in GRAPHS}
        yield Story(
            workers=fleet.workers,
            runs=await recorded(temporal_client, fleet.runs),
            announced=announced,
            behind=behind,
            written={graph: wanted for graph, (wanted, _) in ended.items()},
            landed={graph: found for graph, (_, found) in ended.items()},
        )


def test_only_the_graph_that_is_to_fail_fails_and_only_while_nobody_has_the_plugin(story: Story) -> None:
    failed = [run for run in story.runs if run.status is not WorkflowExecutionStatus.COMPLETED]
    assert {(run.graph, run.failure) for run in failed} == {(FAILS, "ProviderMissing")}
    assert [run.resolving for run in failed if within(run.resolving, story.served)] == []


@pytest.mark.parametrize("graph", ON_MISSING)
def test_no_run_uses_the_wrong_provider_while_a_worker_has_the_right_one(story: Story, graph: str) -> None:
    by_the_plugin = [run for run in story.of(graph) if within(run.resolving, story.served)]
    assert len(by_the_plugin) > 4
    assert {run.served_by for run in by_the_plugin} == {f"{PLUGIN} 1.0"}
    without = [run for run in story.of(graph) if apart(run.resolving, story.perhaps_served)]
    assert len(without) > 3
    assert f"{PLUGIN} 1.0" not in {run.served_by for run in without}


def test_a_graph_of_the_built_in_provider_sees_nothing_of_it(story: Story) -> None:
    assert {run.result and run.result.provider_id for run in story.of(STEADY)} == {"default"}


@pytest.mark.parametrize("graph", GRAPHS)
def test_no_row_is_lost(story: Story, graph: str) -> None:
    assert len(story.written[graph]) > 100
    assert story.landed[graph] == story.written[graph]


def test_what_is_held_or_fails_keeps_its_backlog_and_catches_up(story: Story) -> None:
    assert story.behind[STEADY] == story.behind[FALLS_BACK] == 0
    assert story.behind[HOLDS] > 0
    assert story.behind[FAILS] > 0


@pytest.mark.parametrize("graph", [FALLS_BACK, HOLDS])
def test_both_edges_are_told_once_and_with_their_times(story: Story, graph: str) -> None:
    one, three, four = (story.worker(name) for name in ("one", "three", "four"))
    stretches = [
        (away, list(runs)) for away, runs in groupby(story.of(graph), key=lambda run: run.away is not None)
    ]
    # The graph that is held got another provider in the end, which is a return too.
    assert [away for away, _ in stretches] == [True, False, True, False][: 3 if graph == FALLS_BACK else 4]
    (_, before), (_, served), (_, after), *_ = stretches
    for runs, earliest in ((before, one.started), (after, four.draining)):
        since = runs[0].away and runs[0].away.since
        assert [(run.began, run.away and run.away.since) for run in runs] == [
            (run.began, since) for run in runs
        ]
        assert earliest is not None
        assert since is not None
        assert earliest <= since <= runs[1].began
        assert [run.returns for run in runs] == [[]] * len(runs)
    [returned] = served[0].returns
    assert [run.returns for run in served[1:]] == [[]] * (len(served) - 1)
    assert returned.away == before[-1].away
    assert three.started <= served[0].resolving[1] <= returned.at <= served[1].began


def test_the_logs_warn_once_per_worker_and_graph_and_have_no_traceback(story: Story) -> None:
    for worker in story.workers:
        warned = [line["graph"] for line in worker.said("provider not installed", level="warning")]
        assert sorted(warned) == sorted(set(warned)), worker.name
        assert [line for line in worker.process.said.splitlines() if "Traceback" in line] == []
        if worker.has_plugin:
            assert warned == []
    told = {
        line["graph"]
        for worker in story.workers
        for line in worker.said("provider not installed", level="warning")
    }
    assert told == ON_MISSING.keys()
