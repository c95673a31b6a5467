"""A fleet of graphs on one worker and the dev server, on this machine: `python -m benchmarks.fleet`.

The table goes to the screen and into docs/performance.md. Everything shares the machine's cores: Temporal,
PostgreSQL, the worker and this program, which commits the changes and sees when they become visible. Changes are
of a table without vectors: the embedded vector store is a laptop's, which holds each graph's shard open, and a
fleet has a Qdrant server elsewhere.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleSpec,
)

from benchmarks.engine import ROOT
from benchmarks.fleet_lab import FleetLab, Usage, fleet_lab, insert_graphs, make_schemas, usage
from benchmarks.toy import TASK_QUEUE, Toy
from syncline import names
from syncline.devstack.processes import ChildProcess
from tests.kit.pages import replace_between

REPORT = ROOT / "docs" / "performance.md"
RUNS = f"WorkflowType='{names.SYNC_GRAPH}'"
EVERY_MINUTE = json.dumps({"every_seconds": 60, "notify": False})
OFTEN = json.dumps({"every_seconds": 10, "notify": False})
WOKEN = json.dumps({"every_seconds": 300, "notify": True, "adaptive": True})
"""At a base of a minute two thousand new graphs would be due two thousand times a minute, which is more than one
machine runs: they would take long to slow down. With notification the base is the safety net alone."""
SETTLED = 200
"""Runs a minute below which a fleet under adaptive cadence has slowed down: all at the slowest are 133."""

Lines = list[tuple[str, str]]


@dataclass
class Changes:
    """Single-row changes, committed at a steady pace, and the seconds from each commit until it was visible."""

    lab: FleetLab
    slugs: Sequence[str]
    per_second: float
    name: str = "source"
    waiting: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    seconds: list[float] = field(default_factory=list)
    committed: int = 0
    all_seen: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Commit while this is entered; at the end wait until the last change is visible."""
        writer, reader = [
            await asyncpg.connect(dsn) for dsn in (self.lab.stores.write_dsn, self.lab.stores.graph_dsn)
        ]
        events: asyncio.Queue[str] = asyncio.Queue()
        await reader.add_listener(names.NOTIFY_CHANNEL, lambda *event: events.put_nowait(str(event[3])))
        asking = await asyncpg.connect(self.lab.stores.graph_dsn)
        seeing = asyncio.create_task(self._see(events, asking))
        committing = asyncio.create_task(self._commit(writer))
        try:
            yield
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)
            self.all_seen.clear()
            with suppress(TimeoutError):
                if any(self.waiting.values()) and not seeing.done():
                    await asyncio.wait_for(self.all_seen.wait(), 120)
            seeing.cancel()
            for task in await asyncio.gather(committing, seeing, return_exceptions=True):
                if isinstance(task, Exception):
                    raise task
            for connection in (writer, reader, asking):
                await connection.close()

    @property
    def lost(self) -> int:
        """Changes that never became visible."""
        return sum(len(keys) for keys in self.waiting.values())

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share of the changes was visible."""
        seconds = sorted(self.seconds)
        return seconds[min(len(seconds) - 1, int(len(seconds) * share))]

    def latency(self) -> str:
        """Return median, p99 and the longest."""
        return (
            f"{statistics.median(self.seconds):.2f} s, {self.quantile(0.99):.2f} s, {max(self.seconds):.2f} s; "
            f"{self.lost} lost"
        )

    async def _commit(self, writer: asyncpg.Connection) -> None:
        due = time.monotonic()
        while True:
            slug, key = random.choice(self.slugs), f"{self.name}{self.committed}"
            await writer.execute(
                f"INSERT INTO {slug}.write_raw_sources (id, title) VALUES ($1, 'a title')", key
            )
            self.waiting[slug][key] = time.monotonic()
            self.committed += 1
            due += 1 / self.per_second
            await asyncio.sleep(due - time.monotonic())

    async def _see(self, events: "asyncio.Queue[str]", asking: asyncpg.Connection) -> None:
        while True:
            event = json.loads(await events.get())
            seen = time.monotonic()
            keys = self.waiting[event["graph"]]
            found = await asking.fetch(
                f"SELECT key FROM {event['graph']}.raw_sources WHERE key = ANY($1)", list(keys)
            )
            self.seconds += [seen - keys.pop(row["key"]) for row in found]
            if not any(self.waiting.values()):
                self.all_seen.set()


@dataclass(frozen=True)
class Window:
    """What was measured while a fleet ran."""

    minutes: float
    starts: dict[str, list[datetime]]
    worker: Usage
    temporal: Usage
    postgres: Usage
    connections: str
    changes: Changes

    @property
    def runs(self) -> int:
        """Runs that were started."""
        return sum(len(starts) for starts in self.starts.values())

    def lines(self) -> Lines:
        """Return what the report says."""
        each = 1000 / self.runs
        return [
            ("Runs a minute", f"{self.runs / self.minutes:,.0f}"),
            ("Worker CPU per run", f"{self.worker.cpu * each:.1f} ms"),
            ("Worker memory at the end", f"{self.worker.mib:,.0f} MiB"),
            (
                "Temporal dev server CPU per run; memory",
                f"{self.temporal.cpu * each:.0f} ms; {self.temporal.mib:,.0f} MiB",
            ),
            ("PostgreSQL CPU per run", f"{self.postgres.cpu * each:.0f} ms"),
            ("Postgres connections of the worker", self.connections),
            (
                f"{self.changes.committed:,} single-row changes, commit to visible: median, p99, longest",
                self.changes.latency(),
            ),
        ]


async def observe(
    lab: FleetLab, worker: int, slugs: Sequence[str], minutes: float, per_second: float
) -> Window:
    """Let the fleet run while changes flow, and return what that took."""
    before = usage(worker), usage(lab.temporal.pid), lab.postgres_usage()
    began = datetime.now(UTC)
    changes = Changes(lab, slugs, per_second)
    most = 0
    async with changes.flowing():
        for _ in range(round(minutes * 6)):
            await asyncio.sleep(10)
            most = max(most, sum((await lab.connections()).values()))
        ended = datetime.now(UTC)
        after = usage(worker), usage(lab.temporal.pid), lab.postgres_usage()
    of_worker, of_temporal, of_postgres = (
        Usage(late.cpu - early.cpu, late.mib) for early, late in zip(before, after, strict=True)
    )
    starts = await _starts(lab.client, began, ended)
    by_name = ", ".join(f"{number} {name}" for name, number in sorted((await lab.connections()).items()))
    elapsed = (ended - began).total_seconds() / 60
    return Window(
        elapsed,
        starts,
        of_worker,
        of_temporal,
        of_postgres,
        f"{most} at most ({by_name} at the end)",
        changes,
    )


async def every_minute(lab: FleetLab, slugs: Sequence[str], minutes: float) -> Lines:
    """Measure a fleet in which each graph runs once a minute."""
    await insert_graphs(lab, slugs, EVERY_MINUTE)
    async with lab.worker("worker.py") as worker:
        reconciled = await lab.command("schedule", "reconcile", "--timeout", "300")
        await _until(lab, lambda runs: runs >= len(slugs), since=datetime.now(UTC) - timedelta(minutes=5))
        await asyncio.sleep(60)
        before = await _troubles(lab.client, slugs)
        window = await observe(lab, worker.pid, slugs, minutes, per_second=1)
        print(*window.lines(), sep="\n", flush=True)
        skipped, missed = _since(before, await _troubles(lab.client, slugs))
        # The toy is to have the server for itself.
        for slug in slugs:
            await lab.client.get_schedule_handle(names.sync_schedule_id(slug)).delete()
    gaps = [
        (late - early).total_seconds()
        for starts in window.starts.values()
        for early, late in zip(sorted(starts), sorted(starts)[1:], strict=False)
    ]
    return [
        (f"{len(slugs):,} graphs reconciled from an empty Temporal, one command", f"{reconciled:.1f} s"),
        *window.lines(),
        ("Starts missed; skipped because a run was open", f"{missed}; {skipped}"),
        ("From one start of a graph to its next: shortest, longest", _range(gaps)),
    ]


async def woken(lab: FleetLab, slugs: Sequence[str], minutes: float) -> Lines:
    """Measure a fleet under adaptive cadence with notification, of which one graph in twenty changes."""
    busy = slugs[::20]
    await insert_graphs(lab, slugs, WOKEN)
    async with lab.worker("worker.py") as worker:
        await lab.command("schedule", "reconcile", "--timeout", "600")
        await _settle(lab, len(slugs))
        before = await _troubles(lab.client, slugs)
        window = await observe(lab, worker.pid, busy, minutes, per_second=4)
        print(*window.lines(), sep="\n", flush=True)
        skipped, missed = _since(before, await _troubles(lab.client, slugs))
    return [
        *window.lines(),
        ("Starts missed; skipped because a run was open", f"{missed}; {skipped}"),
    ]


async def tenant(lab: FleetLab, slugs: Sequence[str], minutes: float, rows: int) -> Lines:
    """Measure how soon changes of small graphs are visible, alone and while another graph has much to catch up on."""
    big, *small = slugs
    await insert_graphs(lab, slugs, WOKEN)
    async with lab.worker("worker.py") as worker:
        await lab.command("schedule", "reconcile", "--timeout", "600")
        await _settle(lab, len(slugs))
        alone, beside = (Changes(lab, small, 4, name) for name in ("alone", "beside"))
        async with alone.flowing():
            await asyncio.sleep(60 * minutes)
        print(f"alone: {alone.latency()}", flush=True)
        async with _behind(lab, big, rows) as backlog:
            before, began = usage(worker.pid), time.monotonic()
            async with beside.flowing():
                await backlog.watch(60 * minutes)
            after, elapsed = usage(worker.pid), time.monotonic() - began
        print(f"beside: {beside.latency()}", flush=True)
    ratio = beside.quantile(0.99) / alone.quantile(0.99)
    return [
        (
            f"{alone.committed:,} single-row changes of the others alone: median, p99, longest",
            alone.latency(),
        ),
        (f"{beside.committed:,} while one graph was {rows:,} rows behind", beside.latency()),
        ("Their p99, alone = 1", f"**{ratio:.2f}**"),
        (
            "The graph that was behind, meanwhile",
            f"{backlog.done:,} rows in {backlog.seconds:.0f} s, {backlog.done / backlog.seconds:,.0f} rows/s",
        ),
        (
            "Worker CPU meanwhile; memory at the end",
            f"{(after.cpu - before.cpu) / elapsed:.0%}; {after.mib:,.0f} MiB",
        ),
    ]


@dataclass
class _Backlog:
    """The rows that one graph has to catch up on: which transaction wrote them, and how far it got."""

    reader: asyncpg.Connection
    slug: str
    xid: int
    done: int = 0
    seconds: float = 0

    async def watch(self, seconds: float) -> None:
        """Return when all of it has been read and applied, or after so many seconds."""
        began = time.monotonic()
        while not await self._applied() and self.seconds < seconds:
            await asyncio.sleep(1)
            self.seconds = time.monotonic() - began
        self.done = await self.reader.fetchval(f"SELECT count(*) FROM {self.slug}.raw_sources")

    async def _applied(self) -> bool:
        # Of the cursors: to count the rows each time would cost those that are measured.
        applied: bool = await self.reader.fetchval(
            f"SELECT count(*) > 0 AND bool_and(xid > $1 AND below IS NULL) FROM {self.slug}.sync_cursor"
            " WHERE table_name ~ 'raw_sources'",
            self.xid,
        )
        return applied


@asynccontextmanager
async def _behind(lab: FleetLab, slug: str, rows: int) -> AsyncIterator[_Backlog]:
    """Let a graph be so many rows behind, committed by one statement: other changes are held back until then."""
    writer, reader = [await asyncpg.connect(dsn) for dsn in (lab.stores.write_dsn, lab.stores.graph_dsn)]
    try:
        xid = await writer.fetchval(
            f"WITH written AS (INSERT INTO {slug}.write_raw_sources (id, title)"
            " SELECT 'backlog' || i, 'a title of some words' FROM generate_series(1, $1::bigint) i)"
            " SELECT pg_current_xact_id()::text::bigint",
            rows,
            timeout=None,
        )
        yield _Backlog(reader, slug, xid)
    finally:
        for connection in (writer, reader):
            await connection.close()


async def toy(lab: FleetLab, schedules: int, minutes: float) -> Lines:
    """Measure the least that two activities under a Schedule cost on this server."""
    handles = await _toys(lab, schedules, every=60)
    async with lab.worker("-m", "benchmarks.toy") as worker:
        await asyncio.sleep(30)
        spent = await _spent(lab, worker, "WorkflowType='Toy'", minutes * 60)
    for handle in handles:
        await handle.delete()
    return [
        (
            "A toy of two empty activities on the same server, worker CPU per run; server",
            f"{spent.worker:.1f} ms; {spent.server:.0f} ms",
        )
    ]


async def idle(lab: FleetLab, slugs: Sequence[str], minutes: float) -> Lines:
    """Measure idle runs and the toy's by turns: each has the server for itself, three times."""
    await insert_graphs(lab, slugs, OFTEN)
    toys = await _toys(lab, len(slugs), every=10)
    async with lab.worker("worker.py") as worker, lab.worker("-m", "benchmarks.toy") as toy_worker:
        await lab.command("schedule", "reconcile", "--timeout", "300")
        await _until(lab, lambda runs: runs >= len(slugs), since=datetime.now(UTC) - timedelta(minutes=5))
        graphs = [lab.client.get_schedule_handle(names.sync_schedule_id(slug)) for slug in slugs]
        sides = {
            "SyncGraph": (graphs, worker, RUNS),
            "Toy": (toys, toy_worker, "WorkflowType='Toy'"),
        }
        await asyncio.gather(*(handle.pause() for handles, _, _ in sides.values() for handle in handles))
        rounds: dict[str, list[Spent]] = {name: [] for name in sides}
        for _ in range(3):
            for name, (handles, child, query) in sides.items():
                await asyncio.gather(*(handle.unpause() for handle in handles))
                await asyncio.sleep(15)
                rounds[name].append(await _spent(lab, child, query, minutes * 60))
                await asyncio.gather(*(handle.pause() for handle in handles))
                print(name, rounds[name][-1], flush=True)
                await asyncio.sleep(5)
    ratios = [ours.worker / theirs.worker for ours, theirs in zip(*rounds.values(), strict=True)]
    return [
        *(
            (
                f"{name}, worker CPU per run, each round; server",
                f"{', '.join(f'{each.worker:.1f}' for each in found)} ms; "
                f"{statistics.median(each.server for each in found):.0f} ms",
            )
            for name, found in rounds.items()
        ),
        ("Toy = 1, each round", ", ".join(f"**{ratio:.2f}**" for ratio in ratios)),
    ]


@dataclass(frozen=True)
class Spent:
    """Milliseconds of CPU per run: the worker's, and the Temporal server's."""

    worker: float
    server: float
    runs: int


async def _spent(lab: FleetLab, worker: ChildProcess, query: str, seconds: float) -> Spent:
    began, before = datetime.now(UTC), (usage(worker.pid), usage(lab.temporal.pid))
    await asyncio.sleep(seconds)
    after = (usage(worker.pid), usage(lab.temporal.pid))
    runs = (await lab.client.count_workflows(f"{query} AND StartTime > '{began.isoformat()}'")).count
    own, servers = ((late.cpu - early.cpu) * 1000 / runs for early, late in zip(before, after, strict=True))
    return Spent(own, servers, runs)


async def _toys(lab: FleetLab, schedules: int, *, every: int) -> list[ScheduleHandle]:
    """Create Schedules of the toy, spread over their interval of so many seconds."""
    return [
        await lab.client.create_schedule(
            f"toy/{number}",
            Schedule(
                action=ScheduleActionStartWorkflow(Toy.run, id=f"toy/{number}", task_queue=TASK_QUEUE),
                spec=ScheduleSpec(
                    intervals=[
                        ScheduleIntervalSpec(
                            every=timedelta(seconds=every),
                            offset=timedelta(seconds=every) * number / schedules,
                        )
                    ]
                ),
            ),
        )
        for number in range(schedules)
    ]


async def _starts(client: Client, began: datetime, ended: datetime) -> dict[str, list[datetime]]:
    found: dict[str, list[datetime]] = defaultdict(list)
    window = f"StartTime BETWEEN '{began.isoformat()}' AND '{ended.isoformat()}'"
    async for run in client.list_workflows(f"{RUNS} AND {window}"):
        found[run.id.rpartition("-20")[0]].append(run.start_time)
    return found


async def _count(client: Client, began: datetime, ended: datetime) -> int:
    window = f"StartTime BETWEEN '{began.isoformat()}' AND '{ended.isoformat()}'"
    return (await client.count_workflows(f"{RUNS} AND {window} AND ExecutionStatus='Completed'")).count


async def _settle(lab: FleetLab, graphs: int) -> None:
    """Wait until all have run and so rarely do that none waits for another. A new fleet starts at its base."""
    deadline = time.monotonic() + 2700
    while time.monotonic() < deadline:
        await asyncio.sleep(60)
        now = datetime.now(UTC)
        ever = await _count(lab.client, now - timedelta(hours=3), now)
        recent = f"{RUNS} AND StartTime > '{(now - timedelta(seconds=60)).isoformat()}'"
        last = (await lab.client.count_workflows(recent)).count
        now_open = (await lab.client.count_workflows(f"{RUNS} AND ExecutionStatus='Running'")).count
        print(f"settling: {last} started in the last minute, {now_open} open, {ever} completed", flush=True)
        if ever >= graphs and last < SETTLED and now_open < SETTLED / 10:
            return
    raise SystemExit("the fleet did not slow down")


async def _until(lab: FleetLab, enough: Callable[[int], bool], *, since: datetime) -> None:
    deadline = time.monotonic() + 600
    while not enough(await _count(lab.client, since, datetime.now(UTC))):
        if time.monotonic() > deadline:
            raise SystemExit("the graphs did not all run")
        await asyncio.sleep(2)


async def _troubles(client: Client, slugs: Sequence[str]) -> tuple[int, int]:
    """Return how many starts were skipped because a run was open, and how many were missed, so far.

    The first run of a graph is at once, whatever else there is: some of a whole fleet's are still open when
    the first of the minute is due.
    """
    skipped = missed = 0
    for slug in slugs:
        info = (await client.get_schedule_handle(names.sync_schedule_id(slug)).describe()).info
        skipped += info.num_actions_skipped_overlap
        missed += info.num_actions_missed_catchup_window
    return skipped, missed


def _since(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    return after[0] - before[0], after[1] - before[1]


def _range(seconds: Sequence[float]) -> str:
    return f"{min(seconds):.1f} s, {max(seconds):.1f} s" if seconds else "none ran twice"


async def measure(part: str, graphs: int, minutes: float, rows: int, *, apart: bool) -> Lines:
    """Return the lines of one part, on servers of its own."""
    with tempfile.TemporaryDirectory(prefix="syncline-bench-") as folder:
        async with fleet_lab(Path(folder), apart=apart) as lab:
            slugs = [f"fleet{number}" for number in range(graphs)]
            started = time.perf_counter()
            await make_schemas(lab, slugs)
            print(f"{graphs:,} schemas in {time.perf_counter() - started:.0f} s", flush=True)
            if part == "minute":
                return [*await every_minute(lab, slugs, minutes), *await toy(lab, graphs, min(minutes, 2))]
            if part == "idle":
                return await idle(lab, slugs, minutes / 10)
            if part == "tenant":
                return await tenant(lab, slugs, minutes, rows)
            return await woken(lab, slugs, minutes)


HEADS = {
    "minute": "| {graphs:,} graphs, each every minute, over {minutes:g} minutes | |\n|---|---|",
    "woken": "| {graphs:,} graphs under adaptive cadence with notification, 5% of them changing, over {minutes:g} minutes | |\n|---|---|",
    "idle": "| Idle runs of {graphs:,} graphs, each every 10 s, and as many of a toy of two empty activities, in turn | |\n|---|---|",
    "tenant": "| {graphs:,} graphs under adaptive cadence with notification, one far behind, over {minutes:g} minutes each | |\n|---|---|",
}
GRAPHS = {"minute": 500, "woken": 2000, "idle": 20, "tenant": 200}


def main() -> None:
    """Measure, print, and replace the tables in docs/performance.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--part", choices=list(GRAPHS), action="append")
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--graphs", type=int, help="instead of 500, 2,000, 20 and 200")
    arguments.add_argument("--rows", type=int, default=5_000_000, help="that the tenant's graph is behind")
    arguments.add_argument(
        "--together", action="store_true", help="one PostgreSQL for the tenant's write-db and graph-db"
    )
    arguments.add_argument("--dry", action="store_true", help="leave the report as it is")
    options = arguments.parse_args()
    for part in options.part or GRAPHS:
        graphs = options.graphs or GRAPHS[part]
        lines = asyncio.run(
            measure(
                part, graphs, options.minutes, options.rows, apart=part == "tenant" and not options.together
            )
        )
        rows = "\n".join(f"| {what} | {value} |" for what, value in lines)
        text = f"{HEADS[part].format(graphs=graphs, minutes=options.minutes)}\n{rows}"
        print(text, flush=True)
        if not options.dry:
            replace_between(
                REPORT, f"<!-- benchmark:fleet-{part} -->", f"<!-- /benchmark:fleet-{part} -->", f"\n{text}\n"
            )


if __name__ == "__main__":
    main()
