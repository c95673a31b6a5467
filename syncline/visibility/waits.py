"""Waits: for all who wait in this process, one connection and one question at a time for each graph.

A graph-db tells by NOTIFY that more is visible; once a second it is asked anyway, since a notification can be
missed. However many wait for a graph, that is one statement, and the write-db is asked nothing meanwhile.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import asyncpg

from syncline import names
from syncline.errors import StoreError, SynclineError, TokenRefused
from syncline.logs import get_log
from syncline.messages.visibility import Visibility, VisibilityState
from syncline.sql import quoted, statements_of
from syncline.stores.horizon import HORIZON, OLDEST_WRITER
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["Waits", "Watched"]

_sql = statements_of("syncline.visibility")
_ASK_EVERY: Final = 1.0
_LONGEST_PAUSE: Final = 8.0
"""Longest time between two runs that are asked for while somebody waits, and none has shown it."""
_SINGLY: Final = 50
"""Waits that are asked for one by one at a time, because they are for vectors, or not simply visible."""
_HEADSTART: Final = 0.3
"""Time that the run of a graph whose writers notify has to begin before another one is asked for."""


class _Token(NamedTuple):
    source: str
    xid: int
    oldest: int
    """The oldest transaction that was open."""

    @classmethod
    def from_text(cls, token: str) -> "_Token":
        """Parse a token that the graph-db has not refused."""
        source, xid, oldest = token.rsplit(".", 2)
        return cls(source, int(xid), int(oldest))


class Watched(Protocol):
    """The graph that is waited for: where it is, and how it is woken."""

    @property
    def slug(self) -> str:
        """Its name."""

    @property
    def target(self) -> PostgresStore:
        """Its graph-db."""

    @property
    def write(self) -> PostgresStore:
        """Its write-db."""

    @property
    def schema(self) -> str:
        """Its schema in the graph-db."""

    @property
    def notified(self) -> bool:
        """Whether its writers notify, so that a run begins by itself."""

    async def trigger(self) -> str:
        """Start a run; return what became of that: `paused` if none will come."""


@dataclass(eq=False)
class _Wait:
    token: str
    parsed: _Token
    vectors: bool
    ended: asyncio.Future[Visibility]
    last: Visibility
    asked: float = 0.0


@dataclass
class _Group:
    """Everyone who waits for one graph."""

    graph: Watched
    waits: set[_Wait] = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    trigger_at: float = 0.0
    pause: float = 0.5
    wanted: bool = False
    """Whether the next cycle is to look how far it is."""


class _Channel:
    """The listening connection to one graph-db; while it is down, waits go by the clock."""

    def __init__(self, store: PostgresStore, received: Callable[[str], None]) -> None:
        self._store, self._received = store, received
        self.users = 0
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self.users += 1
        if self._task is None:
            self._task = asyncio.create_task(self._listen())

    def close(self) -> None:
        self.users -= 1
        if self.users == 0 and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _listen(self) -> None:
        while True:
            try:
                async with self._store.alone("waits") as connection:
                    lost = asyncio.Event()
                    connection.add_termination_listener(lambda _, lost=lost: lost.set())
                    await connection.add_listener(names.VISIBLE_CHANNEL, self._receive)
                    await lost.wait()
            except (SynclineError, OSError) as error:
                get_log().debug(
                    "notifications of a graph-db not received", store=self._store.name, error=str(error)
                )
            await asyncio.sleep(_ASK_EVERY)

    def _receive(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        self._received(payload)


class Waits:
    """Waits for the graphs of this process."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}
        self._channels: dict[str, _Channel] = {}

    async def wait(self, graph: Watched, token: str, *, vectors: bool, seconds: float) -> Visibility:
        """Wait until what the token's transaction wrote is visible, and with `vectors` its vectors too.

        Ends early where waiting cannot help: rows of it are parked or rejected, vectors delayed, the graph
        paused. Raise TokenRefused, StoreError.
        """
        began = time.monotonic()
        answer = await self._ask(graph, token)
        if not _is_over(answer, vectors) and seconds > 0:
            answer = await self._wait(graph, token, vectors, seconds, answer)
        if not _is_over(answer, vectors) and answer.state is VisibilityState.PENDING:
            answer = await self._explain(graph, token, answer)
        return answer.model_copy(update={"waited_seconds": round(time.monotonic() - began, 3)})

    async def _wait(
        self, graph: Watched, token: str, vectors: bool, seconds: float, answer: Visibility
    ) -> Visibility:
        wait = _Wait(
            token=token,
            parsed=_Token.from_text(token),
            vectors=vectors,
            ended=asyncio.get_running_loop().create_future(),
            last=answer,
        )
        key = (graph.target.name, graph.schema)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(graph, trigger_at=math.inf)
            self._channel(graph.target).open()
            group.task = asyncio.create_task(self._serve(group))
        # It is newer than the others, so no run that was asked for may show it.
        group.waits.add(wait)
        group.pause, group.wanted = 0.5, False
        group.trigger_at = min(group.trigger_at, time.monotonic() + (_HEADSTART if graph.notified else 0.0))
        group.news.set()
        try:
            async with asyncio.timeout(seconds):
                return await wait.ended
        except TimeoutError:
            return wait.last
        finally:
            group.waits.discard(wait)
            if not group.waits and self._groups.get(key) is group:
                del self._groups[key]
                self._channel(graph.target).close()
                if group.task is not None:
                    group.task.cancel()

    def _channel(self, store: PostgresStore) -> _Channel:
        if store.name not in self._channels:
            self._channels[store.name] = _Channel(store, lambda schema: self._received(store.name, schema))
        return self._channels[store.name]

    def _received(self, store: str, schema: str) -> None:
        group = self._groups.get((store, schema))
        if group is not None:
            group.news.set()

    async def _serve(self, group: _Group) -> None:
        """Answer those who wait for one graph, until nobody does."""
        while True:
            group.news.clear()
            try:
                await self._look(group)
                if group.waits and not group.wanted:
                    group.wanted = True
                    async with group.graph.target.driver() as connection:
                        await connection.execute(_sql("want", schema=quoted(group.graph.schema)))
                if group.waits and time.monotonic() >= group.trigger_at:
                    await self._trigger(group)
            except StoreError as error:
                for wait in group.waits:
                    wait.last = _pending(group.graph, str(error))
            except Exception:
                get_log().exception("waits of a graph failed", graph=group.graph.slug)
                await asyncio.sleep(_ASK_EVERY)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    min(_ASK_EVERY, max(0.0, group.trigger_at - time.monotonic()) + 0.001)
                ):
                    await group.news.wait()

    async def _trigger(self, group: _Group) -> None:
        """Ask for a run that looks how far the graph is; more and more seldom while none shows it."""
        graph = group.graph
        group.trigger_at = time.monotonic() + group.pause
        # Should that run not show it either, the next one is to look again.
        group.pause, group.wanted = min(2 * group.pause, _LONGEST_PAUSE), False
        try:
            outcome = await graph.trigger()
        except SynclineError as error:
            for wait in group.waits:
                wait.last = _pending(graph, f"no run could be started: {error}")
            return
        if outcome == "paused":
            reason = "it is paused, so no run comes: resume it, or sync it by hand with `syncline sync`"
            paused = _pending(graph, reason).model_copy(update={"state": VisibilityState.PAUSED})
            for wait in list(group.waits):
                _end(wait, wait.last if wait.last.visible else paused)

    async def _look(self, group: _Group) -> None:
        waiting = [wait for wait in group.waits if not wait.ended.done()]
        graph = group.graph
        if not waiting:
            return
        async with graph.target.driver() as connection:
            places = await connection.fetch(
                _sql("clean", schema=quoted(graph.schema)),
                [wait.parsed.xid for wait in waiting],
                [wait.parsed.source for wait in waiting],
                [wait.parsed.oldest for wait in waiting],
            )
        concerned = [(waiting[row["place"] - 1], row["visible"]) for row in places]
        for wait, visible in concerned:
            if visible and not wait.vectors:
                _end(wait, _visible(graph))
        # Those that were asked for the longest ago come first.
        left = sorted((wait for wait, _ in concerned if not wait.ended.done()), key=lambda wait: wait.asked)
        for wait in left[:_SINGLY]:
            wait.asked = time.monotonic()
            try:
                answer = await self._ask(graph, wait.token)
            except TokenRefused as error:
                if not wait.ended.done():
                    wait.ended.set_exception(error)
                continue
            wait.last = answer
            if _is_over(answer, wait.vectors):
                _end(wait, answer)

    async def _ask(self, graph: Watched, token: str) -> Visibility:
        refused: asyncpg.PostgresError | None = None
        row: asyncpg.Record | None = None
        async with graph.target.driver() as connection:
            try:
                row = await connection.fetchrow(_sql("said"), graph.schema, token)
            except asyncpg.InvalidParameterValueError as error:
                refused = error
        if refused is not None or row is None:
            fix = getattr(refused, "hint", None) or "Pass it whole, as it was returned."
            raise TokenRefused(graph.slug, getattr(refused, "message", None) or "no answer", fix)
        state = VisibilityState(row["state"])
        if row["visible"] and not row["vectors"] and row["reason"] and "points to write" not in row["reason"]:
            state = VisibilityState.VECTORS_DELAYED
        return Visibility(
            graph=graph.slug,
            visible=row["visible"],
            vectors=row["vectors"],
            state=state,
            reason=row["reason"],
        )

    async def _explain(self, graph: Watched, token: str, answer: Visibility) -> Visibility:
        """Return the answer with what holds it back, as the stores say at the end of a wait."""
        reason: str | None = None
        held_back = _sql("held_back", horizon=HORIZON, oldest_writer=OLDEST_WRITER)
        with contextlib.suppress(StoreError):
            async with graph.write.driver() as connection, reading(connection):
                row = await connection.fetchrow(held_back, str(_Token.from_text(token).xid))
            if row["status"] == "aborted":
                reason = "its transaction was rolled back: there is nothing to be visible"
            elif row["status"] == "in progress":
                reason = "its transaction is still open"
            elif row["held"] and row["age"] is not None:
                by = row["application_name"] or "without a name"
                reason = (
                    f"an open transaction holds it back: {row['age']:.0f} s old, in database "
                    f"{row['database']}, application {by}"
                )
        if reason is None:
            with contextlib.suppress(StoreError):
                async with graph.target.driver() as connection:
                    row = await connection.fetchrow(_sql("advanced", schema=quoted(graph.schema)))
                if row["behind"] is not None:
                    since = f"{row['behind']:.0f} s"
                    reason = f"cycles have not finished for {since}: `syncline status {graph.slug}` says why"
        return answer if reason is None else answer.model_copy(update={"reason": reason})


def _is_over(answer: Visibility, vectors: bool) -> bool:
    """Whether waiting longer cannot help, or is not needed."""
    if answer.visible:
        return not vectors or answer.vectors or answer.state is VisibilityState.VECTORS_DELAYED
    return answer.state in (VisibilityState.PARKED, VisibilityState.REJECTED)


def _end(wait: _Wait, answer: Visibility) -> None:
    if not wait.ended.done():
        wait.ended.set_result(answer)


def _visible(graph: Watched) -> Visibility:
    return Visibility(graph=graph.slug, visible=True, vectors=False, state=VisibilityState.VISIBLE)


def _pending(graph: Watched, reason: str) -> Visibility:
    return Visibility(
        graph=graph.slug, visible=False, vectors=False, state=VisibilityState.PENDING, reason=reason
    )
