"""The worker process: polls while it can log in to its stores, drains on a signal, exits with a status.

Tasks taken without access to the stores would fail; another worker may have correct settings.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from temporalio.client import Client, Plugin
from temporalio.worker import Worker

from activities.isolation.thread import ProviderThread, Serve
from activities.isolation.watchdog import provider_threads
from activities.probes.watched import Watched
from syncline.control.readiness import log_in, stores_regained
from syncline.control.services import Services
from syncline.control.workers import register_worker
from syncline.errors import ConfigurationError, SettingsInvalid, StoreUnusable, SynclineError
from syncline.logs import configure_logging, get_log
from syncline.settings import load_log_format

__all__ = [
    "exit_status",
    "logged_in",
    "registered_while_polling",
    "serve_until",
    "stop_on_signal",
    "tracing_plugins",
]

_LOOK: Final = 1.0
"""Seconds between two checks whether the stores refuse this process."""
_LAST_CALL: Final = 4.0
"""Seconds for which a stopping worker still polls for cycles of its plugins: runs just resolved to it
schedule their cycles within that time, even if they have to be replayed on another worker first."""


def exit_status(main: Callable[[], None]) -> int:
    """Run `main`; return 0, or report its error and return 2 for a configuration error, else 1."""
    try:
        main()
    except SynclineError as error:
        if load_log_format() == "json":
            configure_logging("INFO", "json")
            get_log().critical("worker cannot start", kind=type(error).__name__, error=str(error))
        else:
            sys.stderr.write(f"The worker cannot start. {error}\n")
        return 2 if isinstance(error, ConfigurationError | StoreUnusable) else 1
    return 0


@contextmanager
def tracing_plugins(url: str | None) -> Iterator[Sequence[Plugin]]:
    """Trace while entered, if `url` is set; yield the plugins of the client."""
    if url is None:
        yield ()
        return
    try:
        from activities.tracing import tracing
    except ImportError as error:
        raise SettingsInvalid(
            f"SYNCLINE_TRACES_URL is set, but packages that tracing needs are missing ({error.name}). "
            "Run: pip install 'syncline[tracing]'"
        ) from error
    with tracing(url) as plugin:
        yield (plugin,)


def stop_on_signal() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def drain() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, drain)
    return stop


async def logged_in(services: Services, stop: asyncio.Event) -> bool:
    """Return True once every default store has accepted a login, False if `stop` is set before."""
    await _first_of(stop.wait(), log_in(services))
    if stop.is_set():
        get_log().info("worker stopped before it was ready")
    return not stop.is_set()


async def serve_until(stop: asyncio.Event, services: Services, *, namespace: str, reconciler: str) -> None:
    """Log that the worker is ready; return when it is to drain."""
    settings, log = services.settings, get_log()
    log.info(
        "worker ready",
        task_queue=settings.task_queue,
        namespace=namespace,
        providers=sorted(services.registry.known("sync")),
        reconciler=reconciler,
        application=str(Path(__file__).parents[1]),
    )
    # Imported objects are never freed; frozen, they are not traversed by each full collection.
    gc.collect()
    gc.freeze()
    await stop.wait()
    log.info("worker draining", seconds=settings.graceful_shutdown_seconds)


@asynccontextmanager
async def registered_while_polling(
    client: Client,
    services: Services,
    *,
    workers: Callable[[], Sequence[Worker]],
    serve: Serve,
    watched: Watched | None = None,
) -> AsyncIterator[None]:
    """Run these workers, and that of each routed provider (`serve`), while entered.

    The process is registered in the control plane while all of them poll: a draining worker gets no new
    cycles. They drain concurrently, so that this takes as long as the slowest.
    """
    leaving, watched = asyncio.Event(), watched or Watched()

    def made() -> Sequence[Worker]:
        watched.workers = workers()
        return watched.workers

    async with (
        provider_threads(client, services, serve=serve, dump=True) as opened,
        _polling(made, opened, services, leaving),
    ):
        watched.rooms = opened
        async with register_worker(services, identity=client.identity):
            yield
        # From now on no graph is resolved to this process; cycles resolved just before may still arrive.
        leaving.set()
        if opened:
            await asyncio.sleep(min(_LAST_CALL, services.settings.graceful_shutdown_seconds))
        for room in opened:
            room.drain()


@asynccontextmanager
async def _polling(
    workers: Callable[[], Sequence[Worker]],
    opened: Sequence[ProviderThread],
    services: Services,
    leaving: asyncio.Event,
) -> AsyncIterator[None]:
    """Run the workers while entered, until `leaving` is set, and only while the stores are usable.

    An error of a worker is raised in the body of the context.
    """
    owner, polls = asyncio.current_task(), asyncio.Event()
    task = asyncio.create_task(_poll(workers, opened, services, leaving, polls))

    def ended(task: asyncio.Task[None]) -> None:
        polls.set()
        if not task.cancelled() and task.exception() is not None and owner is not None:
            owner.cancel()

    task.add_done_callback(ended)
    try:
        await polls.wait()
        yield
    finally:
        leaving.set()
        await task


async def _poll(
    workers: Callable[[], Sequence[Worker]],
    opened: Sequence[ProviderThread],
    services: Services,
    leaving: asyncio.Event,
    polls: asyncio.Event,
) -> None:
    log = get_log()
    while True:
        async with AsyncExitStack() as stack:
            running = [await stack.enter_async_context(worker) for worker in workers()]
            polls.set()
            while not leaving.is_set() and not services.usability.barred:
                await _waited(leaving, _LOOK)
            if not leaving.is_set():
                # Its tasks would fail; another worker may have correct settings.
                log.error("worker stopped polling", problems=services.usability.problems())
                for room in opened:
                    room.pause()
            await asyncio.gather(*(worker.shutdown() for worker in running))
        if leaving.is_set():
            return
        await _first_of(leaving.wait(), stores_regained(services))
        if leaving.is_set():
            return
        log.info("worker polls again")


async def _waited(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _first_of(*awaited: Coroutine[object, object, object]) -> None:
    """Return when the first of them returns, and cancel the others; raise its error."""
    tasks = [asyncio.create_task(each) for each in awaited]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
