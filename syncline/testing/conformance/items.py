"""What a provider has to stand, one trial an item: faults are real, and the stores are the judge."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from syncline import names
from syncline.errors import ConfigurationError, SynclineError
from syncline.messages.sync import CycleProgress, CycleStatus
from syncline.migrations import migrate_graph
from syncline.provider import GraphSchema, preparing
from syncline.registry import Registry, plugins
from syncline.sql import quoted
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.testing.conformance import rows
from syncline.testing.conformance.trial import Process, Trial, connection, new_run
from syncline.testing.conformance.under_temporal import under_temporal
from syncline.testing.one_graph import SCHEMA, on_target, write

__all__ = ["ITEMS", "VECTORS", "Item"]

_CUT_OFF = 5
"""Attempts that are cut off before one may end."""
_SOON = 5.0
"""Seconds in which a cancelled cycle ends."""
_BLOCKED = 2.0
"""Seconds that the event loop may be kept busy at a stretch: Temporal's own limit."""
_TURN = 0.02


Check = Callable[[Trial], Coroutine[object, object, None]]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that a provider has to stand."""

    name: str
    advice: str
    """What to do when it does not, in a sentence."""
    check: Check


ITEMS: Final[dict[str, Item]] = {}
"""All of them, by name, in the order in which they are tried."""

VECTORS: Final = "qdrant-down"
"""Without this item, a provider writes no vectors."""


def _item(name: str, advice: str) -> Callable[[Check], Check]:
    def added(check: Check) -> Check:
        ITEMS[name] = Item(name=name, advice=advice, check=check)
        return check

    return added


@_item(
    "entry-point",
    "Workers find a provider by its entry point in group syncline.providers: install its distribution,"
    " by pip install -e .",
)
async def entry_point(trial: Trial) -> None:
    provider = trial.made()
    problems = []
    for point in plugins():
        try:
            registered = Registry().add_plugin(point)
        except ConfigurationError as error:
            problems.append(str(error))
            continue
        if registered.provider.id == provider.id:
            return
    seen = " ".join(problems) or "none does"
    trial.refuse("an installed entry point to make it", seen.rstrip("."), provider=provider)


@_item(
    "contract",
    "The contract in docs/providers.md lists what a provider is and what its cycle owes",
)
async def contract(trial: Trial) -> None:
    try:
        Registry().register("sync", trial.subject.make, "the provider under test 0")
    except ConfigurationError as error:
        trial.refuse("it to be registered", str(error), cause=error)
    async with trial.process() as process:
        graph = process.graph
        await write(graph, trial.ground.world)
        canary = trial.ground.canary
        if canary is not None:
            await write(graph, *canary)
        before = await _footprint(process, of_write_db=True)
        result = await process.cycle()
        if canary is not None and canary[1] in result.model_dump_json() + "".join(map(str, graph.heartbeats)):
            process.refuse("no row's values in results and heartbeats", "a row's text was in them")
        if result.rows == 0:
            process.refuse("a result that tells of the rows", "it told of none, after a cycle that had some")
        if not result.drained:
            process.refuse("status drained when all has been synced", f"it was {result.status}")
        if await _footprint(process, of_write_db=True) != before:
            process.refuse("the write-db to be read only", "rows of it were written")
        if left := await process.open_transactions():
            process.refuse("no transaction to be left open", f"{left} were")


@_item(
    "comparison",
    "The map says what each target row and link is made of; what nobody maps is left as it is",
)
async def comparison(trial: Trial) -> None:
    async with trial.process() as process:
        await write(process.graph, trial.ground.world)
        await process.cycle()
        await process.equal("after a cycle")


@_item(
    "preparation",
    "prepare(context) makes what is missing in context.target, however often: CREATE TABLE IF NOT EXISTS",
)
async def preparation(trial: Trial) -> None:
    async with trial.process() as process:
        if preparing(process.provider) is None:
            return
        await write(process.graph, trial.ground.world)
        before = await _footprint(process, of_write_db=True)
        await process.prepare(process.context())
        await process.settle("after it was prepared")
        await process.prepare(process.context())
        await process.equal("after it was prepared again")
        # As a worker makes it for a shadow: the built-in tables, and nothing of the provider's.
        shadow = GraphSchema(store=process.graph.target, schema=names.shadow_schema(SCHEMA))
        await migrate_graph(shadow.store, shadow.schema)
        vectors = replace(process.context().vectors, prefix=names.shadow_prefix("kg_"))
        context = replace(process.context(), target=shadow, vectors=vectors, shadow=True)
        await process.prepare(context)
        result = await process.cycle(context)
        if result.status is not CycleStatus.DRAINED or not result.rows:
            process.refuse(
                "a prepared shadow to be filled", f"it has {result.rows} rows; the status is {result.status}"
            )
        if await _footprint(process, of_write_db=True) != before:
            process.refuse("the write-db to be read only", "rows of it were written")


@_item(
    "resume-after-kill",
    "Commit progress together with the rows that it is about; read it when a cycle begins",
)
async def resume_after_kill(trial: Trial) -> None:
    run_id, committed = new_run(), asyncio.Event()
    async with trial.process() as process:
        await write(process.graph, trial.ground.world)
        await on_target(process.graph, rows.TELL_COMMITS)
        connect = process.graph.connect_target
    async with connection(connect) as listener:
        await listener.add_listener("conformance", lambda *_: committed.set())
        for attempt in range(1, 1 + _CUT_OFF):
            async with trial.process() as process:
                await process.graph.wait_until_free()
                committed.clear()
                cycle = process.start(process.context(run_id, attempt=attempt, batch_rows=10))
                heard = asyncio.ensure_future(committed.wait())
                await asyncio.wait({cycle, heard}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
                heard.cancel()
                if cycle.done():
                    await process.ended(cycle)
                    break
                await process.kill(cycle)
    async with trial.process() as process:
        await process.finish(run_id, attempt=1 + _CUT_OFF)
        await process.equal("after an attempt that went on where others of its run had been killed")


@_item(
    "late-commits",
    "A cursor may not pass what an open transaction may still bring: capture what is below"
    " pg_snapshot_xmin(pg_current_snapshot())",
)
async def late_commits(trial: Trial) -> None:
    async with trial.process() as process:
        graph = process.graph
        async with connection(graph.connect_write) as late, late.transaction():
            began_first, committed_first = trial.ground.late
            await late.execute(began_first)
            await write(graph, committed_first)
            await process.cycle()
        await process.settle("after a transaction that began first had committed last")


@_item(
    "ties",
    "Page by the key as well: a transaction's rows share the id and the time of their change",
)
async def ties(trial: Trial) -> None:
    async with trial.process() as process:
        await write(process.graph, trial.ground.ties)
        await process.cycle(process.context(batch_rows=7))
        await process.settle("after 100 rows of one transaction and timestamp, in batches of 7")


@_item(
    "deletes",
    "Deleted keys are in sync_tombstone; links, references and vectors of a row go with it",
)
async def deletes(trial: Trial) -> None:
    async with trial.process() as process:
        await write(process.graph, trial.ground.world)
        await process.cycle()
        await write(process.graph, trial.ground.removed)
        await process.settle("after rows, links and references were removed and a table was truncated")


@_item(
    "parked-children",
    "The write-db has no foreign keys: keep a row whose parent is missing until that comes,"
    " and count it in `parked`",
)
async def parked_children(trial: Trial) -> None:
    async with trial.process() as process:
        if not trial.ground.children:
            return
        await write(process.graph, trial.ground.children)
        result = await process.cycle()
        if result.status is CycleStatus.FAILED:
            process.refuse("rows whose parent is missing to wait", "the cycle failed")
        await process.equal("while parents are missing, without which an optional reference is NULL")
        if result.parked == 0 and await trial.ground.waits(process.graph):
            process.refuse("the result to tell that rows wait", "parked was 0")
        await write(process.graph, trial.ground.parents)
        await process.settle("after the parents had come")


@_item(
    "poison-rows",
    "Set a refused row aside and go on; count it in `failures` and `dead_letters`",
)
async def poison_rows(trial: Trial) -> None:
    async with trial.process() as process:
        graph = process.graph
        poison = trial.ground.poison
        await on_target(graph, poison.refused)
        await write(graph, trial.ground.world + poison.row)
        result = await process.cycle()
        lost = trial.ground.lost(await trial.ground.differences(graph, vectors=False))
        if lost:
            process.refuse(
                "a refused row to harm only itself", f"{len(lost)} others had not landed: {lost[0]}"
            )
        if result.failures == result.dead_letters == 0:
            process.refuse("the result to tell of a row that was refused", "it told of no failure")
        if poison.allowed:
            await on_target(graph, poison.allowed)
        await write(graph, poison.mended)
        await process.settle("after the refused row had been mended")


@_item(
    VECTORS,
    "Commit rows whether or not vectors can be written, keep in the graph-db what Qdrant is"
    " owed, and return status vectors_delayed",
)
async def qdrant_down(trial: Trial) -> None:
    async with trial.process() as process:
        await write(process.graph, trial.ground.world)
        away = QdrantServerStore("away", "http://127.0.0.1:9", None, 2)
        result = await process.cycle(process.context(vectors=away))
        await away.close()
        await process.equal("while Qdrant was away", vectors=False)
        if result.status is CycleStatus.DRAINED or result.vectors.error is None:
            seen = f"the status was {result.status} and vectors.error {result.vectors.error!r}"
            process.refuse("the result to tell that vectors wait, and why", seen)
        await process.settle("after Qdrant had come back")


@_item(
    "cancellation",
    "Never swallow asyncio.CancelledError: clean up in `finally`, and let it pass",
)
async def cancellation(trial: Trial) -> None:
    async with trial.process() as process:
        run_id = new_run()
        await write(process.graph, trial.ground.world)
        async with connection(process.graph.connect_target) as holder, holder.transaction():
            await holder.execute(f"LOCK TABLE {trial.ground.locked}")
            cycle = process.start(process.context(run_id))
            if not await process.waiting(cycle):
                if cycle.done():
                    await process.ended(cycle)
                process.refuse(f"a cycle to wait for {trial.ground.locked}, which is locked", "it did not")
            cycle.cancel()
            await asyncio.wait({cycle}, timeout=_SOON)
            if not cycle.done():
                process.refuse("a cancelled cycle to end", f"it was at work {_SOON:g} s later")
            if not cycle.cancelled():
                error = cycle.exception()
                ended = "it returned a result" if error is None else f"it raised {type(error).__name__}"
                process.refuse("a cancelled cycle to end with CancelledError", ended)
        await process.finish(run_id, attempt=2)
        await process.equal("after the attempt that followed a cancelled one")


@_item(
    "heartbeat",
    "Call context.heartbeat(CycleProgress(...)) after each batch; what takes long is awaited, or is"
    " done in a thread",
)
async def heartbeat(trial: Trial) -> None:
    async with trial.process() as process:
        await write(process.graph, trial.ground.world)
        async with _pauses() as pauses:
            await process.cycle(process.context(batch_rows=10))
        beats: Sequence[object] = process.graph.heartbeats
        if not beats:
            process.refuse("heartbeats of a cycle of many batches", "it called context.heartbeat not once")
        if strange := [beat for beat in beats if not isinstance(beat, CycleProgress)]:
            process.refuse("CycleProgress in heartbeats", f"one had {type(strange[0]).__name__}")
        if max(pauses) > _BLOCKED:
            process.refuse("the event loop to stay free", f"it was blocked for {max(pauses):.1f} s")


@_item(
    "idempotence",
    "Compare before writing; let one cycle at a time have the graph, by a lock in the graph-db",
)
async def idempotence(trial: Trial) -> None:
    async with trial.process() as process:
        await write(process.graph, trial.ground.world)
        await process.settle("after a cycle")
        before = await _footprint(process)
        result = await process.cycle()
        if await _footprint(process) != before:
            process.refuse("a second cycle to change nothing", "it wrote rows")
        if result.rows or result.links:
            told = f"it told of {result.rows} rows and {result.links} links"
            process.refuse("a second cycle to tell of no change", told)
        await write(process.graph, trial.ground.more)
        at_once = [process.start(process.context(batch_rows=10)) for _ in range(2)]
        await asyncio.wait(at_once, timeout=30)
        for cycle in at_once:
            # One may be turned away, as long as it says so by an error of ours or by its status.
            turned_away = cycle.done() and not cycle.cancelled() and cycle.exception()
            if not isinstance(turned_away, SynclineError):
                await process.ended(cycle)
        await process.settle("after two cycles at once")


_item("temporal", "Workers find a provider by its entry point: install the package, by pip install -e .")(
    under_temporal
)


async def _footprint(process: Process, *, of_write_db: bool = False) -> list[tuple[object, ...]]:
    """Return the row versions of the graph's tables on one side: any write to them changes it."""
    graph = process.graph
    found: list[tuple[object, ...]] = []
    async with connection(graph.connect_write if of_write_db else graph.connect_target) as observer:
        ground = process.trial.ground
        for name in ground.sources if of_write_db else ground.targets:
            versions = await observer.fetch(
                f"SELECT tableoid::text, ctid::text, xmin::text FROM {quoted(name)} ORDER BY 1, 2"  # noqa: S608
            )
            found.extend((name, *row) for row in versions)
    return found


@asynccontextmanager
async def _pauses() -> AsyncIterator[list[float]]:
    """Yield the times, in seconds, that somebody had to wait for a turn of the event loop."""
    pauses: list[float] = []
    loop = asyncio.get_running_loop()

    async def measure() -> None:
        while True:
            due = loop.time() + _TURN
            await asyncio.sleep(_TURN)
            pauses.append(loop.time() - due)

    measuring = asyncio.create_task(measure())
    try:
        yield pauses
        await asyncio.sleep(2 * _TURN)
    finally:
        measuring.cancel()
