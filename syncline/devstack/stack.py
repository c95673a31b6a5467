"""The development stack as a whole: started in order, shown, and stopped in the reverse order."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import IO, TextIO, TypeVar, cast

from rich.console import Console
from rich.markup import escape

from syncline.application_folder import find_application
from syncline.control.graphs import Graph
from syncline.devstack.declaration import StackDeclaration
from syncline.devstack.environment import (
    StackStores,
    clear_temporal_environment,
    exports_of,
    stack_settings,
    worker_environment,
)
from syncline.devstack.guard import guarded
from syncline.devstack.output import EndingOutput
from syncline.devstack.postgres import EmbeddedPostgres, PostgresServer
from syncline.devstack.processes import (
    ChildProcess,
    ProcessIdentity,
    WorkerProcess,
    log_tail,
    require_free_port,
)
from syncline.devstack.provision import (
    ROLES,
    give_rights,
    load_samples,
    make_roles,
    prepare_graphs,
    schedule_graphs,
)
from syncline.devstack.show import StatusShow, StatusTable
from syncline.devstack.state import RunningStack, StateFolder, private_files
from syncline.devstack.temporal_server import TemporalServer
from syncline.errors import DevStackError
from syncline.messages.base import GraphStatus
from syncline.rights.databases import Places
from syncline.settings import Settings

__all__ = ["DevStack"]

WRITE_DATABASE = "syncline_write"
GRAPH_DATABASE = "syncline_graph"


T = TypeVar("T")


class _StopRequested(Exception):
    """Somebody asked to stop while the stack was starting."""


class DevStack:
    """One run of `syncline dev`."""

    def __init__(
        self,
        declaration: StackDeclaration,
        *,
        console: Console,
        table: StatusTable,
        once: bool = False,
        timeout: float = 300,
    ) -> None:
        self._declared = declaration
        self._console = console
        self._table = table
        self._once = once
        self._timeout = timeout
        self._folder = StateFolder(declaration.state_dir)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        # A closed window or pipe asks for a stop, like Ctrl-C.
        console.file = cast(IO[str], EndingOutput(cast(TextIO, console.file), self._stop.set))
        self._record = RunningStack(dev=_ourselves())

    async def run(self) -> int:
        """Run until somebody stops it, or until `once` is satisfied; return the exit status.

        Raise DevStackError, and leave nothing running, if the stack cannot start as declared.
        """
        self._folder.create()
        with private_files(), self._folder.locked(), self._signals_noted():
            await self._end_leftovers()
            self._require_ports()
            clear_temporal_environment()
            self._folder.write(self._record)
            # Left last: what it would end is gone by then, and so is the record.
            with guarded(self._folder.path, self._folder.path / self._declared.postgres.data):
                try:
                    async with AsyncExitStack() as running:
                        return await self._start_and_show(running)
                except _StopRequested:
                    return 0
                finally:
                    if self._left_running():
                        # The guard ends it once this process has ended.
                        self._print_line("Something went on running; it is being ended.")
                    else:
                        self._folder.delete_record()
                        self._print_line("Stopped.")

    async def _start_and_show(self, running: AsyncExitStack) -> int:
        declared, folder = self._declared, self._folder
        postgres = await running.enter_async_context(self._postgres())
        owner = ROLES.owner or ROLES.worker
        stores = StackStores(
            write_dsn=postgres.dsn(WRITE_DATABASE, role=owner),
            graph_dsn=postgres.dsn(GRAPH_DATABASE, role=owner),
            qdrant_path=folder.path / declared.qdrant.path,
            worker_write_dsn=postgres.dsn(WRITE_DATABASE, role=ROLES.worker),
            worker_graph_dsn=postgres.dsn(GRAPH_DATABASE, role=ROLES.worker),
            writer_dsn=postgres.dsn(WRITE_DATABASE, role=ROLES.writer or owner),
            owner_role=owner,
        )
        settings = stack_settings(stores.as_owner, declared.worker.fields)
        as_writer = stack_settings(stores.as_writer, declared.worker.fields)
        self._note(
            stores=stores,
            temporal_address=declared.temporal.address,
            namespace=declared.temporal.namespace,
            task_queue=settings.task_queue,
        )
        temporal = await running.enter_async_context(self._temporal())
        # Temporal comes up meanwhile.
        graphs = await self._unless_stopped(self._prepared(postgres, settings, as_writer))
        client = await self._unless_stopped(temporal.ready())
        began = datetime.now(UTC)
        worker = await running.enter_async_context(self._worker(settings, stores))
        await self._unless_stopped(schedule_graphs(client, graphs, task_queue=settings.task_queue))
        slugs = [graph.slug for graph in graphs if graph.status is GraphStatus.ACTIVE]
        show = StatusShow(
            client,
            table=self._table,
            console=self._console,
            places=self._places(stores),
            began=began,
            task_queue=settings.task_queue,
        )
        return await self._watch(temporal, worker, show, slugs)

    async def _prepared(
        self, postgres: EmbeddedPostgres, settings: Settings, as_writer: Settings
    ) -> list[Graph]:
        """Return the declared graphs, with their schemas, rights and samples."""
        databases = {"write-db": WRITE_DATABASE, "graph-db": GRAPH_DATABASE}

        async def give(places: Places) -> None:
            await asyncio.to_thread(give_rights, postgres, databases, places)

        await asyncio.to_thread(make_roles, postgres, *databases.values())
        graphs = await prepare_graphs(self._declared, settings, give=give, say=self._print_line)
        await load_samples(self._declared, as_writer, graphs, say=self._print_line)
        return graphs

    async def _watch(
        self,
        temporal: TemporalServer,
        worker: WorkerProcess,
        show: StatusShow,
        slugs: list[str],
    ) -> int:
        """Show the status until something ends, and return the exit status."""
        stopped = asyncio.create_task(self._stop.wait())
        temporal_ended = asyncio.create_task(temporal.child.wait())
        worker_failed = asyncio.create_task(worker.watch(restarted=self._worker_restarted))
        shown = asyncio.create_task(show.run(until_synced=slugs if self._once else None))
        tasks: set[asyncio.Task[object]] = {stopped, temporal_ended, worker_failed, shown}
        try:
            done, _ = await asyncio.wait(
                tasks,
                timeout=self._timeout if self._once else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if stopped in done:
            return 0
        if temporal_ended in done:
            return self._fail(
                f"The Temporal dev server ended by itself with status {temporal_ended.result()}. Its log, "
                f"{self._folder.temporal_log}, ends with:\n{log_tail(self._folder.temporal_log)}"
            )
        if worker_failed in done:
            return self._fail(worker_failed.result())
        if shown in done:
            shown.result()
            return 0
        return self._fail(
            f"Not every graph was synced within {self._timeout:.0f} s: {show.shortfall(slugs)}. "
            f"The worker's log, {self._folder.worker_log}, ends with:\n{log_tail(self._folder.worker_log)}"
        )

    async def _end_leftovers(self) -> None:
        """End what a `syncline dev` that was killed left running; PostgreSQL is taken over instead."""
        record = self._folder.read()
        if record is None:
            return
        left = {name: child for name, child in record.children.items() if child.process() is not None}
        if left:
            names = " and ".join(f"{name} (pid {child.pid})" for name, child in left.items())
            self._print_line(
                f"The previous `syncline dev` (pid {record.dev.pid}) was killed; ending its {names}."
            )
            # The worker before Temporal, as in an orderly stop.
            for child in reversed(left.values()):
                await asyncio.to_thread(child.end, patience=5)
        self._folder.delete_record()

    def _require_ports(self) -> None:
        temporal = self._declared.temporal
        require_free_port(temporal.ip, temporal.port, use="Temporal", option="--port", key="temporal.port")
        require_free_port(
            temporal.ip, temporal.ui_port, use="Web UI", option="--ui-port", key="temporal.ui_port"
        )

    @asynccontextmanager
    async def _postgres(self) -> AsyncIterator[EmbeddedPostgres]:
        self._print_line("Starting PostgreSQL.")
        server = PostgresServer(self._folder.path / self._declared.postgres.data)
        try:
            # Not interrupted half-way: a stop waits for the few seconds that it takes.
            postgres = await asyncio.to_thread(server.start)
            self._folder.keep_private(passed_through=server.user is not None)
            for database in (WRITE_DATABASE, GRAPH_DATABASE):
                await asyncio.to_thread(postgres.ensure_database, database)
            self._check_interrupted()
            yield postgres
        finally:
            self._print_line("Stopping PostgreSQL.")
            await asyncio.to_thread(server.stop)

    @asynccontextmanager
    async def _temporal(self) -> AsyncIterator[TemporalServer]:
        self._print_line("Starting Temporal.")
        log = self._folder.temporal_log
        self._folder.keep_one_old_log(log)
        database = self._folder.path / self._declared.temporal.database
        server = TemporalServer(self._declared.temporal, database=database, log=log)
        try:
            self._note_child("Temporal", await server.start())
            yield server
        finally:
            self._print_line("Stopping Temporal.")
            await server.stop(hurry=self._hurry)

    @asynccontextmanager
    async def _worker(self, settings: Settings, stores: StackStores) -> AsyncIterator[WorkerProcess]:
        application = find_application(self._declared.root)
        self._print_line(f"Starting the worker of {application}.")
        log = self._folder.worker_log
        self._folder.keep_one_old_log(log)
        declared = self._declared
        environment = worker_environment(
            stores,
            declared.worker.environment,
            address=declared.temporal.address,
            namespace=declared.temporal.namespace,
        )
        worker = WorkerProcess(
            application.worker,
            environment,
            log=log,
            graceful_seconds=settings.graceful_shutdown_seconds,
            cwd=declared.root,
        )
        try:
            self._note_child("worker", await worker.start())
            yield worker
        finally:
            self._print_line("Stopping the worker; a running cycle may finish its batch.")
            if not await worker.stop(hurry=self._hurry):
                self._print_line(
                    "The worker did not stop in time and was killed; the next start resumes its cycle."
                )

    def _worker_restarted(self, status: int, child: ChildProcess) -> None:
        self._note_child("worker", child)
        ended = (
            f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        )
        self._print_line(
            f"The worker {ended} and was started again (pid {child.pid}); see {self._folder.worker_log}."
        )

    def _places(self, stores: StackStores) -> dict[str, str]:
        temporal = self._declared.temporal
        exports = exports_of(
            stores, self._folder.path, address=temporal.address, namespace=temporal.namespace
        )
        return {
            "Web UI": f"http://{temporal.ip}:{temporal.ui_port}/namespaces/{temporal.namespace}/workflows",
            "Temporal": f"{temporal.address}, namespace {temporal.namespace}",
            "write-db": stores.write_dsn,
            "graph-db": stores.graph_dsn,
            "worker log": str(self._folder.worker_log),
            "Temporal log": str(self._folder.temporal_log),
            **({"in other shells": exports} if exports else {}),
            "": "Ctrl-C stops everything",
        }

    def _left_running(self) -> bool:
        return any(child.process() is not None for child in self._record.children.values())

    def _note(self, **changes: object) -> None:
        self._record = self._record.model_copy(update=changes)
        self._folder.write(self._record)

    def _note_child(self, name: str, child: ChildProcess) -> None:
        if child.identity is not None:
            self._note(children={**self._record.children, name: child.identity})

    def _print_line(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, soft_wrap=True)

    def _fail(self, sentence: str) -> int:
        self._console.print(f"[bold red]error:[/] {escape(sentence)}", soft_wrap=True)
        return 1

    def _check_interrupted(self) -> None:
        if self._stop.is_set():
            raise _StopRequested

    async def _unless_stopped(self, work: Coroutine[object, object, T]) -> T:
        """Return what `work` returns; cancel it and raise _StopRequested when somebody asks to stop."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _StopRequested
            return task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    @contextlib.contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """While it holds, the first signal asks for an orderly stop and the next for a quick one."""

        def note() -> None:
            if self._stop.is_set():
                self._hurry.set()
            self._stop.set()

        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, note)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _ourselves() -> ProcessIdentity:
    identity = ProcessIdentity.of(os.getpid())
    if identity is None:
        raise DevStackError("This system does not tell processes about themselves (is /proc mounted?).")
    return identity
