"""Linger: a cycle that has drained stays open for some seconds, and looks for further changes.

It holds neither the graph's lock nor a connection meanwhile, so any other run may have the graph. Writers are
muted: the cycle asks for what they commit, and announces at its end what it may have missed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from syncline.engine.news import look_for_news
from syncline.engine.render.statements import SchemaStatements
from syncline.engine.results import add_up
from syncline.engine.state import Ledger, RunProgress
from syncline.engine.template import sql
from syncline.errors import StoreError
from syncline.messages.sync import CycleProgress, CycleStatus, SyncResult
from syncline.provider import MUTED_SECONDS, Linger, SyncContext
from syncline.sql import literal, quoted

__all__ = ["Passes", "linger"]

_POLL, _LATER, _SOON = 0.05, 0.1, 1.0
"""Seconds between two looks: in the first second after a change, and from then on."""
_SETTLE: Final = 1.0
"""Longest wait, at the end, for transactions that may have written while muted."""
_ABANDON: Final = 2.0
"""Longest time that a cancelled cycle takes to let its writers notify again."""


@dataclass
class Passes:
    """What is known of the run's passes so far."""

    progress: RunProgress | None = None
    """What they have committed; another run may have had the graph since."""
    horizon: int = 0
    """Changes below this transaction are here, parked or rejected."""
    wanted: int = 0
    """How often somebody had waited when the last one began."""
    changed_at: datetime | None = None
    """When a cycle had last moved what is visible, before the first pass."""

    @property
    def any(self) -> bool:
        """Whether there was one."""
        return self.progress is not None

    def begun(self, ledger: Ledger) -> Ledger:
        """Note where a pass begins; return the ledger with what earlier ones have committed."""
        self.wanted = ledger.wanted
        if self.progress is not None:
            return ledger.counted_with(self.progress)
        self.changed_at = None if ledger.visible is None else ledger.visible.at
        return ledger

    def ended(self, progress: RunProgress, horizon: int) -> None:
        """Note what a pass has committed, and below which transaction it has captured."""
        self.progress, self.horizon = progress, horizon


async def linger(
    context: SyncContext,
    statements: SchemaStatements,
    passes: Passes,
    result: SyncResult,
    again: Callable[[], Awaitable[SyncResult]],
) -> SyncResult:
    """Return the result, with that of further passes (`again`) if the cycle may linger and changes come.

    Raise what a pass raises; an error of a mere look ends the lingering.
    """
    leave = context.linger
    if leave is None or not _may_change_soon(context, leave, passes, result):
        return result
    try:
        if not await _muted(context, leave):
            return result
        return await _Lingering(context, leave, statements, passes, again).run(result)
    finally:
        await leave.release()


async def _muted(context: SyncContext, leave: Linger) -> bool:
    try:
        return await leave.mute()
    except StoreError as error:
        context.log.info("cycle does not linger", graph=context.graph.slug, reason=str(error))
        return False


def _may_change_soon(context: SyncContext, leave: Linger, passes: Passes, result: SyncResult) -> bool:
    if result.status is not CycleStatus.DRAINED or result.new_columns:
        return False
    # An attempt that was killed may have left writers muted; lingering ends with a look for what they wrote.
    if context.run.attempt > 1 or _captured(result):
        return True
    since = passes.changed_at
    return since is not None and (datetime.now(UTC) - since).total_seconds() < leave.seconds


def _captured(result: SyncResult) -> int:
    return sum(table.captured + table.deletes for table in result.tables)


class _LookFailed(Exception):
    """A look at a store failed; the passes so far are committed."""


@dataclass
class _Lingering:
    context: SyncContext
    leave: Linger
    statements: SchemaStatements
    passes: Passes
    again: Callable[[], Awaitable[SyncResult]]
    began: float = field(default_factory=time.monotonic)
    worked: float = 0.0
    """Seconds of the further passes."""
    found: int = 0
    """How many of them found changes."""
    changed: float = 0.0
    """When the last one did."""
    ended: bool = False
    """Whether the last pass ends it."""
    looked_below: int = 0
    """No change below this transaction is left."""
    quiet: tuple[int, int] | None = None
    """The last snapshot of the write-db that showed nothing to do."""

    async def run(self, result: SyncResult) -> SyncResult:
        """Linger; return the result with what was done meanwhile."""
        self.changed, worked = self.began, result.duration_seconds
        self.looked_below = self.passes.horizon
        self._report(result)
        try:
            try:
                result = await self._stay(result)
                result = await self._settle(result)
            except _LookFailed as error:
                self.context.log.info(
                    "cycle ceased to linger", graph=self.context.graph.slug, reason=str(error.__cause__)
                )
                await self._abandon()
                result = result.model_copy(update={"look_owed": True})
        except BaseException:
            await self._abandon()
            raise
        return result.model_copy(
            update={
                "duration_seconds": worked + self.worked,
                "lingered_seconds": time.monotonic() - self.began - self.worked,
                "lingered_passes": self.found,
            }
        )

    async def _stay(self, result: SyncResult) -> SyncResult:
        """Run a pass whenever there is something new, until it is time to end."""
        muted = self.began
        while not self.ended and self.leave.over() is None:
            now = time.monotonic()
            if now - self.changed >= self.leave.seconds or now - self.began >= self._longest:
                break
            if now - muted >= MUTED_SECONDS / 2:
                if not await self._mute():
                    break
                muted = now
            if await self._news():
                result = await self._pass(result)
            else:
                await asyncio.sleep(_POLL if now - self.changed < _SOON else _LATER)
        # The next run lingers too, so that a graph that is changed all the time is not slow once a minute.
        if time.monotonic() - self.began >= self._longest and self.found and not self.ended:
            result = result.model_copy(update={"look_owed": True})
        return result

    @property
    def _longest(self) -> float:
        return min(self.leave.longest, self.context.budget.seconds)

    async def _settle(self, result: SyncResult) -> SyncResult:
        """Let writers notify again, and look for what they wrote until then; announce what may be left."""
        owed = result.look_owed
        with _looks():
            below = await self.leave.unmute()
        until = time.monotonic() + _SETTLE
        while not self.ended:
            if await self._news():
                result = await self._pass(result)
            elif self.looked_below >= below:
                return result.model_copy(update={"look_owed": owed or result.look_owed})
            elif self.leave.over() is not None or time.monotonic() >= until:
                break
            else:
                await asyncio.sleep(_POLL)
        with _looks():
            await self.leave.announce(below)
        return result.model_copy(update={"look_owed": owed or result.look_owed})

    async def _pass(self, result: SyncResult) -> SyncResult:
        began = time.monotonic()
        last = await self.again()
        self.worked += time.monotonic() - began
        if last.status is CycleStatus.ALREADY_RUNNING:
            # Another run has the graph, and was left a mark; it need not be one that reads marks.
            self.ended = True
            return result.model_copy(update={"look_owed": True})
        self.looked_below = max(self.looked_below, self.passes.horizon)
        if _captured(last) > _captured(result):
            self.found, self.changed = self.found + 1, time.monotonic()
        self.ended = last.status is not CycleStatus.DRAINED or bool(last.new_columns)
        result = add_up(result, last)
        self._report(result)
        return result

    def _report(self, result: SyncResult) -> None:
        done = (table for table in result.tables if table.captured or table.rows or table.deletes)
        self.context.heartbeat(
            CycleProgress(phase="linger", tables=tuple(done), vectors=result.vectors.upserted)
        )

    async def _mute(self) -> bool:
        with _looks():
            return await self.leave.mute()

    async def _news(self) -> bool:
        """Return whether a pass would find something, or somebody waits for one."""
        with _looks():
            async with self.context.target.store.driver() as target:
                schema = literal(quoted(self.context.target.schema))
                if await target.fetchval(sql("linger_wanted", schema=schema)) != self.passes.wanted:
                    return True
            return await self._newer()

    async def _newer(self) -> bool:
        horizon = self.passes.horizon
        seen = await look_for_news(self.context.write, self.statements, horizon, quiet=self.quiet)
        if seen is None:
            return False
        if seen.can_be_read(horizon):
            return True
        # Rows above the horizon can be read once it has moved, and then the snapshot is another one.
        self.quiet = seen.snapshot
        if not seen.newer:
            self.looked_below = max(self.looked_below, seen.below)
        return False

    async def _abandon(self) -> None:
        """Let writers notify, and have another run look for what they may have written; best effort."""

        async def give_back() -> None:
            await self.leave.announce(await self.leave.unmute())

        task = asyncio.create_task(give_back())
        done, _ = await asyncio.wait({task}, timeout=_ABANDON)
        if not done:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextmanager
def _looks() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise _LookFailed from error
