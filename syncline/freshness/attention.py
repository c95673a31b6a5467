"""Attention: what is done while a line is held: hear, look after what was not heard, start runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import asyncpg

from syncline import metrics
from syncline.errors import SynclineError
from syncline.freshness.directory import Directory, Entry
from syncline.freshness.line import LEASE_SECONDS, Line
from syncline.freshness.pace import Pace
from syncline.freshness.unheard import changed_since
from syncline.freshness.wakes import Snapshot, Wakes
from syncline.graphs import Graph
from syncline.logs import get_log
from syncline.provider import Meter
from syncline.stores.postgres import PostgresStore

__all__ = ["Attention", "Wake"]

Wake = Callable[[Graph], Awaitable[str]]
"""Starts a graph's run and says in a word what came of it; a SynclineError if it may be tried again."""

_WINDOW: Final = 1.0
_TICK: Final = 1.0
_REFRESH: Final = 30.0
_AGAIN: Final = 5.0
"""Seconds until a run that could not be started is tried again."""
_UNKNOWN: Final = 5.0
"""Seconds between two looks for a record of a schema that was heard of and is unknown."""
_MOST_UNKNOWN: Final = 100
_PAUSED: Final = 30.0
"""Seconds, at least, until it is asked again whether a Schedule that changed is still paused."""
_PAUSED_SHARE: Final = 0.25
"""How much of the pace such questions may take up."""


@dataclass
class _Doubt:
    """That something may not have been heard."""

    since: int
    """From which transaction on."""
    silence_ends: float
    """When the last one who hushed writers, or let the lease lapse, has no effect any more."""
    look_again: int | None = None
    """Once the horizon is there, nobody is left who may have kept silent; None before the first look."""


class Attention:
    """One holding of a line: `begin`, then `pay` until an error ends it. The next one is on another line."""

    def __init__(
        self,
        line: Line,
        store: PostgresStore,
        key: str | None,
        *,
        directory: Directory,
        pace: Pace,
        wake: Wake,
        meter: Meter,
        tell: Callable[[str], None],
    ) -> None:
        self._line = line
        self._store = store
        self._key = key
        self._directory = directory
        self._pace = pace
        self._wake = wake
        self._meter = meter
        self._tell = tell
        self._wakes = Wakes(Snapshot(xmin=0, xmax=0), window=_WINDOW)
        self._news = asyncio.Event()
        self._unknown: dict[str, int] = {}
        """Schemas that no record names, a few of them: a graph may have come since the records were read."""
        self._hushing: set[asyncio.Task[None]] = set()
        self._paused: set[str] = set()
        """The schemas whose changes wait for an operator to resume a Schedule."""
        self._wanted: dict[str, bool] = {}
        """Whether the records want the writers of each schema to notify."""
        self._told: dict[str, bool] = {}
        """The same as the writers know it."""
        self._doubted: _Doubt | None = None
        self._renewed = 0.0
        self._since = 0
        """Below it nothing is notified any more: who claims that has made it up."""

    async def begin(self) -> None:
        """Listen, renew the lease, and have run what changed while nobody listened."""
        await self._line.listen(self._on_notification)
        await self._line.check()
        seen = await self._line.snapshot()
        self._wakes = Wakes(seen, window=_WINDOW)
        self._since = seen.xmin
        last = await self._line.last_heard()
        if last is None:
            last = seen.xmin
        # Ahead of all that is here: the table came with a dump of another cluster.
        self._doubt(last if last <= seen.xmax else 0)
        await self._directory.read(older_than=_REFRESH)
        await self._follow_records()
        await self._renew()

    async def pay(self) -> None:
        """Start runs until the line is lost; raise why."""
        work = (self._tick(), self._keep_up(), self._start(), self._line.wait_lost(None))
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, *self._hushing):
                task.cancel()
            await asyncio.gather(*tasks, *self._hushing, return_exceptions=True)

    def _on_notification(self, schema: str, xid: int) -> None:
        # Anybody may notify: nothing is kept, asked or touched for a name that no record has.
        if schema not in self._directory.entries(self._key):
            if len(self._unknown) < _MOST_UNKNOWN:
                self._unknown[schema] = xid
            return
        now, xid = _now(), max(xid, self._since)
        metrics.NOTIFICATIONS.add(self._meter, 1, store=self._store.name)
        seconds = self._wakes.note(schema, xid, xid, now=now)
        self._news.set()
        if seconds > 0:
            self._wakes.hush(schema, until=now + seconds)
            task = asyncio.create_task(self._hush(schema, seconds))
            self._hushing.add(task)
            task.add_done_callback(self._hushing.discard)

    async def _hush(self, schema: str, seconds: float) -> None:
        try:
            await self._line.hush(schema, seconds)
        except (asyncpg.PostgresError, TimeoutError) as error:
            self._tell(f"writers of schema '{schema}' cannot be hushed: {error}")
        else:
            self._wakes.hush(schema, until=_now() + seconds)

    async def _start(self) -> None:
        """Start each run when it is due, one after the other."""
        while True:
            self._news.clear()
            following = self._wakes.following()
            if following is None or following > _now():
                await _within(self._news, None if following is None else following - _now())
                continue
            schema = self._wakes.due(_now())
            if schema is not None:
                await self._start_runs(schema, await self._directory.find(self._key, schema))

    async def _start_runs(self, schema: str, entry: Entry) -> None:
        if not entry:
            self._paused.discard(schema)
            self._wakes.drop(schema)
            return
        for _ in entry:
            await self._pace.turn()
        now = _now()
        # Before the run, so that it sees no less.
        seen = await self._line.snapshot()
        outcomes: set[str] = set()
        try:
            for graph in entry:
                outcome = await self._wake(graph)
                outcomes.add(outcome)
                self._count(outcome)
                get_log().debug("change heard", graph=graph.slug, run=outcome)
        except SynclineError as error:
            self._count("failed")
            self._tell(str(error))
            self._wakes.postpone(schema, until=now + _AGAIN)
            return
        if outcomes == {"paused"}:
            # It is to be run when it is resumed, which nobody tells. A fleet that is paused asks more rarely.
            self._paused.add(schema)
            seconds = max(_PAUSED, self._pace.seconds(len(self._paused)) / _PAUSED_SHARE)
            self._wakes.postpone(schema, until=now + seconds)
        else:
            self._paused.discard(schema)
            self._wakes.started(schema, seen, now=now)

    def _count(self, outcome: str) -> None:
        metrics.WAKES.add(self._meter, 1, store=self._store.name, outcome=outcome)

    async def _tick(self) -> None:
        """Look after the horizon and the lease; most of the time there is nothing to do."""
        while True:
            await asyncio.sleep(_TICK)
            renew = _now() - self._renewed >= LEASE_SECONDS / 3
            if renew:
                seen = await self._line.snapshot()
                await self._line.check()
                # What has ended before our own word was notified before it too, and so has arrived.
                self._since = seen.xmin
                await self._renew()
            if renew or self._wakes.held:
                self._wakes.moved(await self._line.snapshot(), now=_now())
                self._news.set()

    async def _keep_up(self) -> None:
        """Look after the records and what was not heard, beside the ticks: a lease may be shorter."""
        followed = _now()
        while True:
            await asyncio.sleep(_TICK)
            if _now() - followed >= LEASE_SECONDS / 3:
                followed = _now()
                await self._directory.read(older_than=_REFRESH)
                await self._follow_records()
            if self._unknown:
                await self._look_up_unknown()
            if self._doubted is not None and _now() >= self._doubted.silence_ends:
                await self._look(self._doubted, await self._line.snapshot())

    async def _look_up_unknown(self) -> None:
        """Hear those that a record names by now, and forget the others; once in a while, whatever comes."""
        if not await self._directory.read(older_than=_UNKNOWN):
            return
        unknown, self._unknown = self._unknown, {}
        for schema, xid in unknown.items():
            if schema in self._directory.entries(self._key):
                self._on_notification(schema, xid)

    async def _renew(self) -> None:
        """Renew the lease; if it had lapsed, writers may have kept silent since."""
        seen = await self._line.snapshot()
        heard_below = self._wakes.heard_below(seen)
        if self._doubted is not None:
            heard_below = min(heard_below, self._doubted.since)
        lapsed = await self._line.renew(heard_below)
        self._renewed = _now()
        if lapsed:
            self._doubt(heard_below)

    def _doubt(self, heard_below: int) -> None:
        """Have a look at what may not have been heard, soon, when all writers notify again."""
        self._doubted = _Doubt(heard_below, silence_ends=_now() + 2 * _WINDOW)

    async def _look(self, doubt: _Doubt, seen: Snapshot) -> None:
        """Have run what changed without a word; and once more, when those have ended who may be silent."""
        if doubt.look_again is None:
            doubt.look_again = seen.xmax
        elif seen.xmin < doubt.look_again:
            return
        schemas = [schema for schema, wanted in self._wanted.items() if wanted]
        changed = await changed_since(self._store, schemas, doubt.since)
        for schema in sorted(changed):
            self._wakes.note(schema, min(doubt.since, seen.xmin), seen.xmax - 1, now=_now())
        self._news.set()
        if changed:
            get_log().info("changes found that nobody heard of", graphs=len(changed))
        # Another doubt may have come up meanwhile.
        if seen.xmin >= doubt.look_again and self._doubted is doubt:
            self._doubted = None

    async def _follow_records(self) -> None:
        """Have the writers of each graph notify as its record says; who cannot be told is told next time."""
        entries = self._directory.entries(self._key)
        able = await self._line.able(list(entries))
        self._wanted = {schema: bool(entry) for schema, entry in entries.items() if schema in able}
        told = await self._line.want(
            {schema: flag for schema, flag in self._wanted.items() if self._told.get(schema) is not flag}
        )
        self._told = {
            schema: flag if schema in told.schemas else self._told[schema]
            for schema, flag in self._wanted.items()
            if schema in told.schemas or schema in self._told
        }
        if told.problem is not None:
            self._tell(f"not all writers can be told whether to notify: {told.problem}")
        roused = [schema for schema in told.anew if self._wanted[schema]]
        if roused:
            # They kept silent until now, for however long.
            seen = await self._line.snapshot()
            for schema in sorted(roused):
                self._wakes.note(schema, seen.xmin, seen.xmax - 1, now=_now())
            self._news.set()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _within(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or so many seconds later."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
