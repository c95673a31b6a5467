"""The probes' thread: answers while the event loops of the worker are blocked; looks at stores."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Final

from temporalio.client import Client

from activities.isolation.pulse import LoopPulse
from activities.isolation.thread import ProviderThread, wind_down
from activities.probes.board import Check, answer
from activities.probes.looks import Look, looks, settings_of_looks
from activities.probes.server import Answer, serve
from activities.probes.watched import Watched
from syncline.concurrency import PATIENCE
from syncline.control.services import Services
from syncline.errors import SettingsInvalid, SynclineError
from syncline.logs import get_log
from syncline.provider import Meter
from syncline.settings import Settings

__all__ = ["probing"]

_TICK: Final = 1.0
_SILENT: Final = 20.0
"""Seconds that an event loop may not answer: a cycle blocks it for milliseconds only."""
_FROZEN: Final = 3.0
"""Seconds beyond a tick after which this thread did not run either, so that nobody's silence counts."""
_BETWEEN: Final = 4.0
"""Seconds between two looks at a store."""
_SOON: Final = 2.0
"""The same after one that failed, until the check is red; then they get rarer."""
_RARELY: Final = 15.0
_LATEST: Final = 18.0
"""Seconds that a store may take to answer: with the pause before it, a dead one is red within 30."""
_LISTENER_LOST: Final = 10.0
_LISTENER_SILENT: Final = 25.0
"""Seconds without an answer on an open listen connection, which is used at least every ten."""


@asynccontextmanager
async def probing(settings: Settings, client: Client, meter: Meter) -> AsyncIterator[Watched]:
    """Serve the probes while entered, if the settings have an address; yield what they watch.

    Raise SettingsInvalid if the address cannot be used.
    """
    watched = Watched()
    if settings.probes is None:
        yield watched
        return
    thread = _ProbeThread(settings, settings.probes, client, watched, meter)
    await thread.open()
    try:
        yield watched
    finally:
        await thread.close()


class _ProbeThread:
    def __init__(
        self, settings: Settings, address: str, client: Client, watched: Watched, meter: Meter
    ) -> None:
        host, _, port = address.rpartition(":")
        self._address, self._host, self._port = address, host.strip("[]"), int(port)
        self._settings, self._client = settings_of_looks(settings), client
        self._watched, self._meter = watched, meter
        self._main = LoopPulse(asyncio.get_running_loop())
        self._main_check = self._check("event loop", fix=_restart("this worker"), patience=0)
        self._rooms: dict[ProviderThread, tuple[LoopPulse, Check]] = {}
        self._rooms_silent = max(_SILENT, settings.blocked_seconds)
        self._phase = self._check("worker", fix="See its log.", patience=0)
        self._polling = self._check(
            "pollers", fix="Correct what it names; if it names nothing to correct, restart this worker."
        )
        self._listener = self._check(
            "listener",
            fix="See `notification listener unavailable` in its log; Schedules start runs meanwhile.",
            patience=0,
        )
        self._stores: list[Check] = []
        self._frozen_at = float("-inf")
        self._loop = asyncio.new_event_loop()
        self._close = asyncio.Event()
        self._opened, self._ended = Future[None](), Future[None]()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)

    async def open(self) -> None:
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    async def close(self) -> None:
        self._loop.call_soon_threadsafe(self._close.set)
        await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=3 * PATIENCE)

    def _check(self, name: str, *, fix: str, patience: float | None = None) -> Check:
        if patience is None:
            return Check(name, fix=fix, meter=self._meter)
        return Check(name, fix=fix, meter=self._meter, patience=patience)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except SettingsInvalid as error:
            self._opened.set_exception(error)
        except Exception:
            get_log().exception("probes failed")
        finally:
            wind_down(self._loop)
            self._ended.set_result(None)

    async def _serve(self) -> None:
        paths: dict[str, Answer] = {"/healthz": self._health, "/readyz": self._readiness}
        try:
            server = await serve(self._host, self._port, paths)
        except OSError as error:
            raise SettingsInvalid(
                f"SYNCLINE_PROBES '{self._address}' cannot be served: {error.strerror or error}"
            ) from error
        self._opened.set_result(None)
        async with Services.open(self._settings, application_name="syncline probe") as services:
            tasks = [asyncio.create_task(self._watch())]
            for look in looks(services, self._client):
                check = self._check(look.name, fix=look.fix)
                self._stores.append(check)
                tasks.append(asyncio.create_task(self._keep_looking(look, check)))
            await self._close.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        server.close()

    def _health(self) -> tuple[bool, str]:
        return self._answered(self._alive())

    def _readiness(self) -> tuple[bool, str]:
        checks = [*self._alive(), self._phase, self._polling, self._listener, *self._stores]
        return self._answered(checks)

    def _alive(self) -> list[Check]:
        return [self._main_check, *(check for _, check in self._rooms.values())]

    def _answered(self, checks: list[Check]) -> tuple[bool, str]:
        told = answer(self._client.identity, checks)
        return not told.red, told.model_dump_json()

    async def _watch(self) -> None:
        """Look at the parts of this process, every second."""
        while True:
            self._look_at_loops()
            self._look_at_parts()
            before = time.monotonic()
            await asyncio.sleep(_TICK)
            if time.monotonic() - before > _TICK + _FROZEN:
                # The process was stopped, or another thread had the interpreter.
                self._frozen_at = time.monotonic()
                for pulse in (self._main, *(pulse for pulse, _ in self._rooms.values())):
                    pulse.reset()

    def _look_at_loops(self) -> None:
        for room in self._watched.rooms:
            if room not in self._rooms:
                provider = f"provider {room.provider.id}"
                check = self._check(f"event loop of {provider}", fix=_restart(provider), patience=0)
                self._rooms[room] = room.pulse(), check
        _judge(self._main_check, self._main, _SILENT)
        for pulse, check in self._rooms.values():
            # While the worker drains, a blocked provider is abandoned in time.
            _judge(check, pulse, float("inf") if self._watched.draining else self._rooms_silent)

    def _look_at_parts(self) -> None:
        watched = self._watched
        phase = watched.phase_problem()
        if phase is not None:
            problem, fix = phase
            self._phase.failed(problem, fix=fix)
            return
        self._phase.passed()
        polling = watched.polling_problem()
        if polling is None:
            self._polling.passed()
        else:
            self._polling.failed(polling)
        if time.monotonic() - self._frozen_at > _LISTENER_SILENT:
            self._look_at_listener()

    def _look_at_listener(self) -> None:
        listening = self._watched.listening
        if listening is None:
            self._listener.passed("SYNCLINE_NOTIFY=false")
            return
        silence = listening.silence(None)
        if silence is None:
            self._listener.passed("no graph of the default write-db is started by changes")
        elif silence.seconds > (_LISTENER_LOST if silence.lost else _LISTENER_SILENT):
            since = time.monotonic() - min(silence.seconds, _LISTENER_SILENT)
            self._listener.failed(silence.problem or "no answer", since=since)
        elif not silence.lost or self._listener.looked:
            self._listener.passed(silence.problem)

    async def _keep_looking(self, look: Look, check: Check) -> None:
        pause = _BETWEEN
        while True:
            began = time.monotonic()
            problem = await _problem(look)
            if problem is None:
                check.passed()
                pause = _BETWEEN
            elif self._frozen_at < began:
                check.failed(problem, since=began)
                pause = min(2 * pause, _RARELY) if check.red else _SOON
            # Spread, so that the workers of a fleet do not ask a store at once.
            await asyncio.sleep(pause * random.uniform(0.75, 1.0))  # noqa: S311


async def _problem(look: Look) -> str | None:
    try:
        async with asyncio.timeout(_LATEST):
            await look.ask()
    except TimeoutError:
        return f"no answer within {_LATEST:g} s"
    except SynclineError as error:
        return str(error)
    except Exception as error:
        # Its text is not ours, and may have anything in it.
        return f"it cannot be asked: {type(error).__name__}"
    return None


def _judge(check: Check, pulse: LoopPulse, most: float) -> None:
    silent = pulse.silent_seconds()
    if silent > most:
        check.failed(f"the event loop has not answered for {silent:.0f} s", since=time.monotonic() - silent)
    else:
        check.passed()


def _restart(what: str) -> str:
    return f"Restart this worker; its log has the stack of what blocks {what}. Cycles continue elsewhere."
