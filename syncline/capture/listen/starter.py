"""Run starter: starts due runs, a few at a time, and holds while Temporal is unavailable.

Its directory says which graphs use a schema; it is refreshed now and then from the control plane.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from syncline import metrics
from syncline.capture.listen.debounce import Snapshot, TriggerDebouncer
from syncline.capture.listen.tenants import tenants_of
from syncline.control.graphs import Graph, GraphRecords
from syncline.errors import SynclineError
from syncline.logs import get_log
from syncline.messages.base import GraphStatus
from syncline.provider import Meter

__all__ = [
    "Changed",
    "Directory",
    "Entry",
    "ListenContext",
    "RateLimiter",
    "Runs",
    "Starting",
    "loop_time",
    "one_of",
]

_AFRESH: Final = 2.0
"""Seconds before an unknown schema is looked up again."""

Entry = tuple[Graph, ...]
"""The graphs of one schema that notifications may run: usually one, none if all are opted out."""


_OF: Final = "\x00"
"""Between a schema and a graph: no schema's name has it."""


def one_of(schema: str, graph: Graph) -> str:
    """Return as what a run of one graph is due, where others share its schema."""
    return f"{schema}{_OF}{graph.slug}"


class Directory:
    """Graphs by write store and schema, as of the last successful read."""

    def __init__(self, read_records: Callable[[], Awaitable[GraphRecords]]) -> None:
        self._read_records = read_records
        self._entries: dict[str | None, dict[str, Entry]] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    @property
    def stores(self) -> frozenset[str | None]:
        """The write stores with a graph that notifications may run."""
        return frozenset(key for key, entries in self._entries.items() if any(entries.values()))

    def entries(self, store: str | None) -> Mapping[str, Entry]:
        """Return schema -> graphs of a write store. Each read creates a new mapping."""
        return self._entries.get(store, {})

    async def find(self, store: str | None, schema: str) -> Entry:
        """Return the schema's graphs; an unknown schema triggers another read."""
        if schema not in self.entries(store):
            await self.read(older_than=_AFRESH)
        return self.entries(store).get(schema, ())

    async def entry(self, store: str | None, place: str) -> Entry:
        """Return what is due as `place`: the graphs of a schema, or one of them (`one_of`)."""
        schema, _, slug = place.partition(_OF)
        found = await self.find(store, schema)
        return tuple(graph for graph in found if slug in ("", graph.slug))

    async def read(self, *, older_than: float) -> bool:
        """Read the records if the last read is older than this; return whether they were read.

        On failure the previous records stay.
        """
        async with self._reading:
            if time.monotonic() - self._read_at < older_than:
                return False
            try:
                records = await self._read_records()
            except SynclineError as error:
                get_log().debug("graphs could not be read", error=str(error))
                return False
            self._read_at = time.monotonic()
            entries: dict[str | None, dict[str, Entry]] = {}
            for graph in records.valid:
                schemas = entries.setdefault(graph.write_store, {})
                wanted = (graph,) if graph.status is GraphStatus.ACTIVE and graph.schedule.notify else ()
                schemas[graph.source_schema] = schemas.get(graph.source_schema, ()) + wanted
            self._entries = entries
            return True


class RateLimiter:
    """Rate limiter: grants `acquire()` in FIFO order, at most `per_second` a second."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next = 0.0
        self._waiting = asyncio.Lock()

    def seconds(self, turns: int) -> float:
        """Return how long this many grants take, in seconds."""
        return turns * self._interval

    async def acquire(self) -> None:
        """Wait for the caller's turn."""
        async with self._waiting:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._next - loop.time()))
            self._next = max(self._next, loop.time()) + self._interval


_AGAIN: Final = 5.0
"""Seconds until a run that could not be started is retried."""
_AT_ONCE: Final = 4
"""Runs started at the same time: each waits for a server that may be busy."""
_CROWD: Final = 20
"""From this many due runs on, two lists of upcoming runs are worth their cost."""
_LINGERING: Final = 0.25
"""Seconds between two looks whether a cycle still lingers, to which a change was left."""
_PROBE: Final = 0.5
"""Seconds between two probes of an unavailable Temporal."""
_ASKED: Final = 3
"""Tries to list upcoming runs of a Temporal that has just returned and may not be complete."""
_PAUSED: Final = 30.0
"""Minimum seconds before checking again whether a changed Schedule is still paused."""
_PAUSED_SHARE: Final = 0.25
"""Share of the rate limit that such checks may use."""


Changed = Callable[[str, Mapping[str, str], int], Awaitable[frozenset[str]]]
"""Schema, slug -> tenant, transaction -> the graphs that have something new since."""


class Runs(Protocol):
    """Starts runs. Failures raise a SynclineError."""

    async def trigger(self, graph: Graph) -> str:
        """Start a run of the graph; return the outcome in a word."""

    async def answers(self) -> bool:
        """Return whether runs can be started now, quickly and without retries."""

    async def coming(self, *, returned: bool) -> frozenset[str]:
        """Return the graphs that have a run coming anyway, later than now.

        With `returned`, the server has just come back: include runs that it has yet to start for missed
        times.
        """


@dataclass(frozen=True, kw_only=True)
class ListenContext:
    """One write-db as its listener sees it: its graphs, what starts their runs, and where problems go."""

    store: str
    """The store's name, for logs and metrics."""
    key: str | None
    """The store's key in graph records."""
    directory: Directory
    limiter: RateLimiter
    runs: Runs
    meter: Meter
    report: Callable[[str], None]
    retries: Callable[[Sequence[Graph]], Awaitable[None]] | None = None
    """Runs those of the graphs whose retries are due."""
    visible_below: Callable[[Graph], Awaitable[int]] | None = None
    """Returns the transaction below which everything is in the graph-db."""

    def entries(self) -> Mapping[str, Entry]:
        """Return schema -> graphs, as of the last read."""
        return self.directory.entries(self.key)

    def entry(self, place: str) -> Entry:
        """Return what is due as `place`, as of the last read."""
        schema, _, slug = place.partition(_OF)
        return tuple(graph for graph in self.entries().get(schema, ()) if slug in ("", graph.slug))


class Starting:
    """`run` starts due runs until the connection fails; `news` signals that more may be due."""

    def __init__(
        self,
        context: ListenContext,
        debouncer: TriggerDebouncer,
        *,
        snapshot: Callable[[], Awaitable[Snapshot]],
        news: asyncio.Event,
        changed: "Changed | None" = None,
        muted: Callable[[str], Awaitable[float]] | None = None,
    ) -> None:
        """`changed` says which of the graphs of tenants that share a schema have something new.

        `muted` says for how long a schema's writers are muted: by a lingering cycle, when a run is due.
        """
        self._context = context
        self._changed = changed
        self._muted = muted
        self._lingered: set[str] = set()
        """The schemas whose changes were left to a lingering cycle."""
        self._debouncer = debouncer
        self._snapshot = snapshot
        self._news = news
        self._paused: set[str] = set()
        """The schemas whose changes wait until an operator resumes a Schedule."""
        self._crowded = 0.0
        """When many due runs were last checked."""

    async def run(self) -> None:
        """Start each run when it is due, the longest due first."""
        while True:
            self._news.clear()
            following = self._debouncer.following()
            if following is None or following > loop_time():
                await _within(self._news, None if following is None else following - loop_time())
                continue
            due = self._debouncer.all_due(loop_time())
            if len(due) >= _CROWD and loop_time() - self._crowded >= _AGAIN:
                well = await self._look_through()
            else:
                well = all(await asyncio.gather(*(self._start(schema) for schema in due[:_AT_ONCE])))
            if not well:
                await self._hold()

    async def _start(self, schema: str) -> bool:
        """Start the runs of a schema's graphs; return False, to retry later, on failure."""
        entry = await self._context.directory.entry(self._context.key, schema)
        if not entry:
            self._paused.discard(schema)
            self._debouncer.drop(schema)
            return True
        tenants = {} if _OF in schema else tenants_of(entry)
        if tenants and self._changed is not None:
            await self._hand_on(schema, entry, tenants, self._changed)
            return True
        if await self._lingers(schema, entry):
            return True
        for _ in entry:
            await self._context.limiter.acquire()
        now = loop_time()
        # Before the run, so that the run sees at least this.
        seen = await self._snapshot()
        try:
            outcomes = await self._trigger(entry)
        except SynclineError as error:
            self._count("failed")
            self._context.report(str(error))
            self._debouncer.postpone(schema, until=now + _AGAIN)
            return False
        if outcomes == {"paused"}:
            # It must run after it is resumed, which is not notified. More paused graphs are checked less
            # often.
            self._paused.add(schema)
            seconds = max(_PAUSED, self._context.limiter.seconds(len(self._paused)) / _PAUSED_SHARE)
            self._debouncer.postpone(schema, until=now + seconds)
        else:
            self._paused.discard(schema)
            self._debouncer.started(schema, seen, now=now)
        return True

    async def _lingers(self, schema: str, entry: Entry) -> bool:
        """Return whether a lingering cycle looks for the schema's changes, or has, so that no run is due.

        While it does, ask again soon: what it has not seen at its end is due then.
        """
        if self._muted is None or _OF in schema:
            return False
        if await self._muted(schema):
            self._lingered.add(schema)
            self._debouncer.postpone(schema, until=loop_time() + _LINGERING)
            return True
        if schema not in self._lingered:
            return False
        self._lingered.discard(schema)
        look, highest = self._context.visible_below, self._debouncer.highest(schema)
        try:
            seen = look is not None and all([await look(graph) > highest for graph in entry])
        except SynclineError as error:
            get_log().debug("visible position unknown", schema=schema, error=str(error))
            return False
        if seen:
            self._count("lingered")
            self._debouncer.drop(schema)
        return seen

    async def _hand_on(
        self, schema: str, entry: Entry, tenants: Mapping[str, str], changed: "Changed"
    ) -> None:
        """Have those graphs run, each by itself, whose tenants have something new in the schema."""
        now, floor = loop_time(), self._debouncer.floor(schema)
        # Before the probe, so that it sees at least this.
        seen = await self._snapshot()
        concerned = await changed(schema, tenants, floor)
        for graph in entry:
            if graph.slug in concerned:
                # What is above the horizon is handed on again when that has moved.
                self._debouncer.note(one_of(schema, graph), floor - 1, floor - 1, now=now)
        self._debouncer.started(schema, seen, now=now)

    async def _trigger(self, entry: Entry) -> set[str]:
        outcomes: set[str] = set()
        for graph in entry:
            outcome = await self._context.runs.trigger(graph)
            outcomes.add(outcome)
            self._count(outcome)
            get_log().debug("change received", graph=graph.slug, run=outcome)
        return outcomes

    async def _look_through(self) -> bool:
        """Of many due runs, drop those that have a run coming anyway; return False on failure."""
        now, seen = loop_time(), await self._snapshot()
        self._crowded = now
        try:
            self._leave(await self._context.runs.coming(returned=False), seen, now)
        except SynclineError as error:
            self._context.report(str(error))
            return False
        return True

    async def _hold(self) -> None:
        """Start nothing until runs can be started again, and then none that comes anyway."""
        before: tuple[float, Snapshot] | None = None
        asked = 0
        while True:
            now, seen = loop_time(), await self._snapshot()
            if not await self._context.runs.answers():
                before = now, seen
                await asyncio.sleep(_PROBE)
                continue
            if before is None:
                return  # It was a problem of one graph.
            try:
                coming = await self._context.runs.coming(returned=True)
            except SynclineError as error:
                self._context.report(str(error))
                asked += 1
                if asked == _ASKED:
                    return  # Then each is started, whether a run is coming or not.
                await asyncio.sleep(_PROBE)
                continue
            # Everything started since then has begun later than this.
            left = self._leave(coming, before[1], before[0])
            get_log().info("runs can be started again", store=self._context.store, coming=left)
            self._crowded = loop_time()
            return

    def _leave(self, coming: frozenset[str], seen: Snapshot, now: float) -> int:
        """Mark upcoming runs, which see at least this snapshot, as started; return how many."""
        left = 0
        for schema in self._debouncer.all_due(loop_time() + _AGAIN):
            entry = self._context.entry(schema)
            if not entry or any(graph.slug not in coming for graph in entry):
                continue
            self._debouncer.started(schema, seen, now=now)
            self._paused.discard(schema)
            for _ in entry:
                self._count("coming")
            left += len(entry)
        return left

    def _count(self, outcome: str) -> None:
        metrics.TRIGGERS.add(self._context.meter, 1, store=self._context.store, outcome=outcome)


def loop_time() -> float:
    """Return the running event loop's clock, in seconds."""
    return asyncio.get_running_loop().time()


async def _within(event: asyncio.Event, seconds: float | None) -> None:
    """Return when the event is set, or after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
