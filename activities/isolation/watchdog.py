"""Watchdog of provider threads: reports a blocked event loop, and fails its cycles as ProviderBlocked."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from temporalio.client import Client
from temporalio.service import RPCError

from activities.errors import translated
from activities.isolation.stack_timer import StackTimer
from activities.isolation.thread import ProviderThread, Serve, UnderWay
from syncline import metrics
from syncline.control.services import Services
from syncline.errors import ProviderBlocked
from syncline.logs import get_log

__all__ = ["Watchdog", "provider_threads"]

_MISSING: Final = 3
"""Multiple of the limit after which the provider counts as missing in this worker."""
_FOR_GOOD: Final = 6
"""Multiple of the limit after which a restart of the worker is advised."""
_PATIENCE: Final = 5.0


class Watchdog:
    """Monitors provider threads from another event loop.

    A thread that has not answered for `seconds` is logged as an error, once; it takes no more cycles until it
    answers, and its running ones are failed, by their task tokens, as ProviderBlocked. After three times as
    long, its provider is withdrawn from the services' registry until the thread answers.
    """

    def __init__(self, client: Client, threads: Sequence[ProviderThread], services: Services) -> None:
        self._client, self._threads = client, threads
        self._seconds, self._meter = services.settings.blocked_seconds, services.meter
        self._registry = services.registry
        self._blocked: dict[ProviderThread, float] = {}
        self._for_good: set[ProviderThread] = set()

    async def watch(self, *, dump: bool = False) -> None:
        """Monitor the threads until cancelled.

        With `dump`, this thread and the provider threads write their stacks to stderr if this loop itself is
        blocked for three times as long: code that holds the GIL can only be found this way.
        """
        tick = min(1.0, self._seconds / 4)
        timers: dict[int, StackTimer] = {}
        try:
            while True:
                if dump:
                    self._push_back(timers)
                before = time.monotonic()
                await asyncio.sleep(tick)
                if time.monotonic() - before > tick + self._seconds / 2:
                    # This loop, or the whole process, did not run either: no thread could have answered.
                    for room in self._threads:
                        if not room.blocked:
                            room.reset_liveness()
                for room in self._threads:
                    try:
                        await self._look_after(room)
                    except Exception:  # the watchdog itself is not supervised
                        get_log().exception("watchdog failed", provider=room.provider.id)
        finally:
            for timer in timers.values():
                timer.close()

    def _push_back(self, timers: dict[int, StackTimer]) -> None:
        alive = {room.native_id for room in self._threads} | {threading.get_native_id()}
        for gone in timers.keys() - alive:
            timers.pop(gone).close()
        for native_id in alive:
            if native_id is not None:
                if native_id not in timers:
                    timers[native_id] = StackTimer(native_id)
                timers[native_id].push_back(3 * self._seconds)

    async def _look_after(self, room: ProviderThread) -> None:
        silent = room.silent_seconds()
        since = self._blocked.get(room)
        log = get_log().bind(provider=room.provider.id, distribution=room.distribution)
        if silent <= self._seconds:
            if since is not None:
                log.info("provider thread runs again", seconds=round(time.monotonic() - since, 1))
                del self._blocked[room]
                room.blocked = False
                self._for_good.discard(room)
                self._registry.restore("sync", room.provider.id)
        elif since is None:
            self._blocked[room] = time.monotonic() - silent
            room.blocked = True
            await self._blocks(room)
        elif silent > _MISSING * self._seconds and not self._registry.withdrawn("sync", room.provider.id):
            self._registry.withdraw("sync", room.provider.id)
        elif silent > _FOR_GOOD * self._seconds and room not in self._for_good:
            self._for_good.add(room)
            log.error("provider thread still blocked: restart this worker", seconds=round(silent, 1))

    async def _blocks(self, room: ProviderThread) -> None:
        stack = _stack_of(room)
        cycles = room.under_way.all()
        error = ProviderBlocked(
            room.provider.id,
            distribution=room.distribution,
            trouble="blocked",
            did=f"has blocked its event loop for more than {self._seconds:g} s, at {_place(room, stack)}",
            do="It must await, or use `asyncio.to_thread`. Its cycles were failed, others take no harm; if "
            "it does not end by itself, restart the worker.",
        )
        get_log().error(
            "provider blocks its event loop",
            provider=room.provider.id,
            distribution=room.distribution,
            graphs=sorted(cycle.graph for cycle in cycles),
            error=str(error),
            stack="".join(traceback.format_list(stack)),
        )
        metrics.PROVIDER_TROUBLES.add(self._meter, 1, provider=room.provider.id, trouble=error.trouble)
        room.stop_polling()
        await asyncio.gather(*(self._fail(cycle, error) for cycle in cycles))

    async def _fail(self, cycle: UnderWay, error: ProviderBlocked) -> None:
        handle = self._client.get_async_activity_handle(task_token=cycle.task_token)
        try:
            async with asyncio.timeout(_PATIENCE):
                await handle.fail(translated(error))
        except (RPCError, TimeoutError) as failure:
            # It has ended meanwhile, or Temporal is unavailable: then its heartbeats time out.
            get_log().debug("blocked cycle not failed", graph=cycle.graph, error=str(failure))


def _stack_of(room: ProviderThread) -> Sequence[traceback.FrameSummary]:
    """Return the stack of the provider's thread, the innermost call last."""
    frame = sys._current_frames().get(room.thread_id or 0)  # noqa: SLF001 # there is no other way
    return [] if frame is None else traceback.extract_stack(frame)


def _place(room: ProviderThread, stack: Sequence[traceback.FrameSummary]) -> str:
    """Return the innermost line of the plugin's code, or of any code if the stack has none of it."""
    package = sys.modules.get(type(room.provider).__module__.partition(".")[0])
    home = Path(getattr(package, "__file__", None) or "nowhere")
    if home.name == "__init__.py":
        home = home.parent
    for frame in reversed(stack):
        if Path(frame.filename).is_relative_to(home):
            return f"{Path(frame.filename).relative_to(home.parent)}:{frame.lineno} in {frame.name}"
    return f"{stack[-1].filename}:{stack[-1].lineno} in {stack[-1].name}" if stack else "a place unknown"


@asynccontextmanager
async def provider_threads(
    client: Client, services: Services, *, serve: Serve, dump: bool = False
) -> AsyncIterator[Sequence[ProviderThread]]:
    """Serve the cycles of every routed provider in a separate thread while entered.

    Raise the error that prevents a thread from opening. At the end they drain together and are closed, the
    last one first; one that does not end is abandoned.
    """
    opened: list[ProviderThread] = []
    watchdog = Watchdog(client, opened, services)
    watching = asyncio.create_task(watchdog.watch(dump=dump))
    try:
        for provider_id in services.registry.known("sync"):
            registered = services.registry.get("sync", provider_id)
            if registered is not None and registered.routed:
                room = ProviderThread(registered, client, services, serve=serve)
                opened.append(room)
                await room.open()
        yield opened
    finally:
        for room in opened:
            room.drain()
        for room in reversed(opened):
            await room.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
