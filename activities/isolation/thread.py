"""Provider thread: a thread with its own event loop, services and Temporal worker, for one provider's cycles.

A provider that blocks its event loop blocks only the cycles of its own graphs.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker, WorkerTuner

from activities.isolation.pulse import LoopPulse
from activities.slots import CycleSlots, tuner_of
from syncline import metrics
from syncline.concurrency import PATIENCE
from syncline.control.services import Services
from syncline.logs import get_log
from syncline.provider import SyncProvider
from syncline.registry import Registered
from syncline.temporal.client import connect_again

__all__ = ["ProviderThread", "RunningCycles", "Serve", "UnderWay", "run", "slots_of_this_loop", "wind_down"]


def slots_of_this_loop(count: int) -> WorkerTuner:
    """Return a tuner for `count` concurrent activities that takes tasks only while its event loop runs.

    The SDK's threads would grant their slots even to a blocked loop.
    """
    return tuner_of(CycleSlots(count, eager=lambda: False))


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """One running attempt of a cycle."""

    graph: str
    task_token: bytes


class RunningCycles:
    """The running cycles of an event loop."""

    def __init__(self) -> None:
        self._now: dict[UnderWay, asyncio.Task[object]] = {}

    @contextmanager
    def entered(self, graph: str) -> Iterator[None]:
        """Register the current activity while entered."""
        cycle, task = UnderWay(graph=graph, task_token=activity.info().task_token), asyncio.current_task()
        if task is None:
            raise RuntimeError("an activity runs in a task")
        self._now[cycle] = task
        try:
            yield
        finally:
            del self._now[cycle]

    def all(self) -> Sequence[UnderWay]:
        """Return the running cycles; thread-safe."""
        return list(self._now)

    def cancel_all(self) -> None:
        """Cancel all running cycles; call it in their event loop."""
        for task in self._now.values():
            task.cancel()


T = TypeVar("T")


def run(main: Coroutine[object, object, T], *, patience: float = PATIENCE) -> T:
    """Run `main` in a new event loop; abandon tasks that run `patience` seconds after their cancellation."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main)
    finally:
        wind_down(loop, patience=patience)
        asyncio.set_event_loop(None)


def wind_down(loop: asyncio.AbstractEventLoop, *, patience: float = PATIENCE) -> None:
    """Cancel all tasks, and close the loop once they have ended, at the latest after `patience` seconds."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=patience))
    left = [task.get_name() for task in tasks if not task.done()]
    if left:
        get_log().error("tasks that ignore their cancellation were left behind", tasks=left)
    else:
        loop.run_until_complete(loop.shutdown_asyncgens())
    # Not `shutdown_default_executor`, which waits for threads indefinitely.
    loop.close()


_PAUSE: Final = 5.0
"""Seconds before a failed worker, or a failed provider thread, is restarted."""

_ASK_AGAIN: Final = 0.5
"""Seconds between two checks whether this process can use its stores, while it cannot."""

Serve = Callable[["ProviderThread", Client, Services], Worker]


class ProviderThread:
    """The thread of one provider. Call its methods in the event loop that opens it.

    It opens a client with the given client's configuration, and services with the same settings, providers
    and meter. `serve` is called in the thread, and returns the worker to run there.
    """

    def __init__(
        self, registered: Registered[SyncProvider], client: Client, services: Services, *, serve: Serve
    ) -> None:
        self.provider, self.distribution = registered.provider, registered.distribution
        self.under_way = RunningCycles()
        self._client, self._services, self._serve = client, services, serve
        self._loop = asyncio.new_event_loop()
        self._opened, self._drained, self._ended = Future[None](), Future[None](), Future[None]()
        self._draining = False
        self._leave, self._close = asyncio.Event(), asyncio.Event()
        self._worker: Worker | None = None
        self._pulse = self.pulse()
        self.blocked = False
        """Whether its loop is blocked, as set by the watchdog."""
        # A daemon: the process can end even if a provider never returns.
        self._thread = threading.Thread(target=self._run, name=f"room of {self.provider.id}", daemon=True)

    @property
    def thread_id(self) -> int | None:
        """Identifier of the thread, to find its stack."""
        return self._thread.ident

    @property
    def native_id(self) -> int | None:
        """Kernel id of the thread; None before it runs and after it has ended."""
        return self._thread.native_id if self._thread.is_alive() else None

    async def open(self) -> None:
        """Start to serve, or raise the error that prevents it."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    def pause(self) -> None:
        """Stop polling until this process can use its stores; running cycles may finish."""
        self._call(self._leave.set)

    def drain(self) -> None:
        """Stop polling; running cycles may finish within the graceful shutdown timeout."""
        self._draining = True
        self._call(self._leave.set)

    async def close(self) -> None:
        """Wait until it is drained, and close provider and stores; abandon what takes too long."""
        self.drain()
        graceful = self._services.settings.graceful_shutdown_seconds
        await self._settled(self._drained, graceful + 2 * PATIENCE)
        self._call(self._close.set)
        if not await self._settled(self._ended, 3 * PATIENCE):
            get_log().error(
                "provider thread left behind",
                provider=self.provider.id,
                distribution=self.distribution,
                graphs=sorted(cycle.graph for cycle in self.under_way.all()),
            )

    @property
    def polls(self) -> bool:
        """Whether its worker takes cycles; readable from any thread."""
        worker = self._worker
        return worker is not None and worker.is_running and not self.blocked

    def pulse(self) -> LoopPulse:
        """Return a new pulse of its event loop, for one caller."""
        return LoopPulse(self._loop, gone=self._ended.done)

    def silent_seconds(self) -> float:
        """Return the seconds since the event loop has not answered; for the watchdog."""
        return self._pulse.silent_seconds()

    def reset_liveness(self) -> None:
        """Restart the measurement of its silence."""
        self._pulse.reset()

    def stop_polling(self) -> None:
        """Stop the polling of a blocked thread; once its loop runs, cancel its cycles and restart it."""
        if self._worker is not None:
            # The first step of `Worker.shutdown`; the rest needs the loop, which is blocked.
            self._worker._bridge_worker.initiate_shutdown()  # noqa: SLF001
        self._call(self.under_way.cancel_all)
        self._call(self._leave.set)

    def _call(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(what)

    async def _settled(self, future: "Future[None]", seconds: float) -> bool:
        """Return whether the future is done in time; False at once for a blocked loop."""
        patience = 1.0 if self.blocked else seconds
        done, _ = await asyncio.wait([asyncio.wrap_future(future)], timeout=patience)
        return bool(done)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        failure = self._supervise()
        while failure is not None and self._opened.done() and not self._draining:
            self._log_failure("provider thread ended; restarting", failure)
            metrics.PROVIDER_TROUBLES.add(
                self._services.meter, 1, provider=self.provider.id, trouble="escaped"
            )
            failure = self._supervise(after=_PAUSE)
        if failure is not None and self._opened.done():
            self._log_failure("provider thread ended", failure)
        elif failure is not None:
            self._opened.set_exception(failure)
        try:
            wind_down(self._loop)
        finally:
            for future in (self._opened, self._drained, self._ended):
                if not future.done():
                    future.set_result(None)

    def _supervise(self, *, after: float = 0) -> Exception | None:
        """Run the thread's main until it ends; return the error if it ended too early."""
        life = self._loop.create_task(self._serve_cycles(after))
        while not life.done():
            try:
                self._loop.run_until_complete(life)
            except (SystemExit, KeyboardInterrupt) as error:
                # Raised in a task that the provider started: these stop an event loop.
                self._log_failure("a provider's task tried to end the process", error)
            except (Exception, asyncio.CancelledError):  # noqa: S112 # the life's own, seen to below
                continue
        if life.cancelled():
            # By the provider: cancelling all tasks of its event loop cancels this one too.
            return RuntimeError("its main task was cancelled")
        failure = life.exception()
        return failure if failure is None or isinstance(failure, Exception) else RuntimeError(repr(failure))

    async def _serve_cycles(self, after: float) -> None:
        await asyncio.sleep(after)
        client = await connect_again(self._client)
        settings, meter = self._services.settings, self._services.meter
        registry = self._services.registry.for_another_loop()
        usability = self._services.usability
        async with Services.open(settings, registry=registry, meter=meter, usability=usability) as services:
            # Its imports take a second: in a cycle, they would count as the provider blocking its loop.
            services.vector_store(None)
            while not self._draining:
                if usability.barred and self._opened.done():
                    await asyncio.sleep(_ASK_AGAIN)
                    continue
                try:
                    await self._work(client, services)
                except Exception as error:
                    if not self._opened.done():
                        raise
                    self._log_failure("provider worker failed; restarting", error)
                    await asyncio.sleep(_PAUSE)
            if not self._drained.done():
                self._drained.set_result(None)
            await self._close.wait()

    async def _work(self, client: Client, services: Services) -> None:
        self._leave.clear()
        self._worker = worker = self._serve(self, client, services)
        # In separate tasks: `async with` would wait indefinitely for a worker whose tasks were cancelled.
        running = asyncio.create_task(worker.run())
        leaving = asyncio.create_task(self._shut_down_when_left(worker))
        if not self._opened.done():
            self._opened.set_result(None)
        try:
            await asyncio.wait([running, leaving], return_when=asyncio.FIRST_COMPLETED)
            await running
        finally:
            self._worker = None
            leaving.cancel()
            running.cancel()
            graceful = self._services.settings.graceful_shutdown_seconds
            await asyncio.wait([running], timeout=graceful + PATIENCE)

    async def _shut_down_when_left(self, worker: Worker) -> None:
        await self._leave.wait()
        await worker.shutdown()

    def _log_failure(self, event: str, error: BaseException) -> None:
        get_log().error(
            event,
            provider=self.provider.id,
            distribution=self.distribution,
            error=repr(error),
            exc_info=error,
        )
