"""Pace of an embedding service: how many requests at once, of how many texts, and until when none at all.

One object for each service in the process, shared by its event loops. It begins with one small request and
grows while the service answers faster for it; it halves when the service is overloaded.
"""

import asyncio
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol, runtime_checkable
from weakref import WeakKeyDictionary, WeakValueDictionary

import structlog

__all__ = ["Held", "Pace", "Paced", "PacedRequest", "pace_of"]

_FIRST_ROWS: Final = 8
_SAMPLES: Final = 3
"""Answers after which a change of lanes or texts is judged, or one per lane if that is more."""
_GAIN: Final = 1.15
"""A change is kept if the service does this much more per second."""
_AGAIN: Final = 32
"""Judgements until a change that was no gain is tried again."""
_LONG: Final = 4.0
"""Seconds: a request that takes longer has fewer texts next time, so that a cycle can end in time."""
_QUICK: Final = 0.1
"""Seconds: a request that takes less may have twice the texts, since many services count requests."""
_SHORT_HOLD: Final = 2.0
"""Seconds of a pause that is waited for; a longer one is told."""
_SMALLEST: Final = 4_096

_Dial = Literal["lanes", "rows"]
_log = structlog.get_logger(__name__)


class Held(Exception):
    """The service asked for a pause that is too long to wait for; `until`: its end."""

    def __init__(self, until: datetime) -> None:
        self.until = until
        super().__init__(f"it asked for a pause until {until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")


@runtime_checkable
class Paced(Protocol):
    """A service that says how it may be asked."""

    @property
    def pace(self) -> "Pace":
        """The pace of this service, the same object for every client of it in the process."""


@dataclass(frozen=True, eq=False)
class PacedRequest:
    """A request that has a lane; a result of an older setting of the dials judges nothing."""

    generation: int
    sent: float


class Pace:
    """Lanes, texts and bytes per request, and the hold, of one service. Thread-safe."""

    def __init__(
        self,
        service: str,
        *,
        most_lanes: int = 16,
        most_rows: int = 256,
        most_bytes: int = 1_000_000,
        first_rows: int = _FIRST_ROWS,
        variables: str = "SYNCLINE_EMBEDDING",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin carefully. `variables`: what the names of the service's settings begin with."""
        self.service, self._variables = service, variables
        self.most_lanes, self.most_rows = most_lanes, most_rows
        self.lanes, self.rows = 1, min(first_rows, most_rows)
        self.most_bytes = most_bytes
        """Bytes of texts that a request may have; a larger text goes alone."""
        self.limits_in_a_row = 0
        """Requests that a rate limit refused since the last one that was answered."""
        self._clock = clock
        self._guard = threading.RLock()
        self._open = 0
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._held = 0.0
        self._generation = 0
        self._rates: list[float] = []
        self._seconds: list[float] = []
        self._trial: tuple[_Dial, int, float] | None = None
        self._rest: dict[_Dial, int] = {"lanes": 0, "rows": 0}
        self._gently = False

    @classmethod
    def of_this_process(
        cls,
        service: str,
        address: str,
        *,
        most_lanes: int,
        most_rows: int,
        variables: str = "SYNCLINE_EMBEDDING",
    ) -> "Pace":
        """Return the pace of the service at this address, shared by all its clients in the process."""
        with _guard:
            pace = _paces.get((service, address))
            if pace is None:
                pace = cls(service, most_lanes=most_lanes, most_rows=most_rows, variables=variables)
                _paces[service, address] = pace
            return pace

    @property
    def held_until(self) -> datetime | None:
        """When the service may be asked again; None if now."""
        left = self._held - self._clock()
        return datetime.now(UTC) + timedelta(seconds=left) if left > 0 else None

    def hold_until(self, moment: datetime) -> None:
        """Send no request of any graph before this moment, or before the end of an earlier hold."""
        self._held = max(self._held, self._clock() + (moment - datetime.now(UTC)).total_seconds())

    async def turn(self) -> None:
        """Wait until a request may be sent; raise Held if that takes longer than two seconds."""
        while (left := self._held - self._clock()) > 0:
            until = self.held_until
            if left > _SHORT_HOLD and until is not None:
                raise Held(until)
            await asyncio.sleep(left)

    @asynccontextmanager
    async def request(self) -> AsyncIterator[PacedRequest]:
        """Take one of the lanes, after a hold; raise Held if that is long. Not to be nested."""
        await self._enter()
        try:
            await self.turn()
            yield PacedRequest(self._generation, self._clock())
        finally:
            self._leave()

    def too_large(self, texts: int, size: int) -> None:
        """Note that a request of so many texts and bytes failed, and each half of it passed."""
        with self._guard:
            before = self.rows, self.most_bytes
            self.most_bytes = min(self.most_bytes, max(_SMALLEST, size // 2))
            self._set("rows", min(self.rows, max(1, texts // 2)))
            self._rest["rows"] = 8 * _AGAIN
            self._gently = True
        if before != (self.rows, self.most_bytes):
            self._log_change("embedding requests made smaller", fix=f"{self._variables}_BATCH={self.rows}")

    async def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with self._guard:
                if self._open < self.lanes:
                    self._open += 1
                    return
                turn: asyncio.Future[None] = loop.create_future()
                self._waiting.append((loop, turn))
            await turn

    def _leave(self) -> None:
        with self._guard:
            self._open -= 1
        self._notify()

    def _notify(self) -> None:
        """Let all who wait look again: some may be cancelled, and lanes may have changed."""
        with self._guard:
            waiting, self._waiting = self._waiting, []
        for loop, turn in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_release, turn)

    def _set(self, dial: _Dial, value: int) -> None:
        if dial == "lanes":
            self.lanes = value
        else:
            self.rows = value
        self._generation += 1
        self._trial = None
        self._rates, self._seconds = [], []

    def answered(self, request: PacedRequest, texts: int, *, full: bool) -> None:
        """Note its success; `full`: it had as many texts as it was allowed."""
        took = max(self._clock() - request.sent, 1e-6)
        with self._guard:
            self.limits_in_a_row = 0
            if took > 2 * _LONG and self.rows > 1 and texts > 1:
                self._set("rows", max(1, min(self.rows, texts // 2)))
                self._rest["rows"] = _AGAIN
            elif not full or request.generation != self._generation:
                pass
            elif took < _QUICK and self.rows < self.most_rows and self._rest["rows"] == 0:
                self._set("rows", min(self.most_rows, 2 * self.rows))
            else:
                self._rates.append(texts / took)
                self._seconds.append(took)
                if len(self._rates) >= max(_SAMPLES, self.lanes):
                    self._judge()
        self._notify()

    def _judge(self) -> None:
        # Medians: one slow answer among many says nothing about the dials.
        rate = self.lanes * statistics.median(self._rates)
        seconds = statistics.median(self._seconds)
        self._rates, self._seconds = [], []
        if self._trial is not None:
            dial, before, slower = self._trial
            self._trial = None
            if rate < _GAIN * slower:
                self._rest[dial] = _AGAIN
                self._set(dial, before)
                return
        if seconds > _LONG and self.rows > 1:
            self._rest["rows"] = _AGAIN
            self._set("rows", self.rows // 2)
            return
        dials: tuple[_Dial, _Dial] = ("rows", "lanes")
        for dial in dials:
            now, most = (self.lanes, self.most_lanes) if dial == "lanes" else (self.rows, self.most_rows)
            if self._rest[dial] > 0:
                self._rest[dial] -= 1
            elif now < most and (dial == "lanes" or 2 * seconds <= _LONG):
                self._set(dial, min(most, max(now + 1, now * 5 // 4) if self._gently else 2 * now))
                self._trial = dial, now, rate
                return

    def overloaded(self, request: PacedRequest) -> None:
        """Note that it failed as an overloaded service fails: 429, 5xx, no answer in time."""
        with self._guard:
            # The requests of all lanes fail together: that is one refusal.
            if request.generation != self._generation or self.lanes == 1:
                return
            self._set("lanes", max(1, self.lanes // 2))
            self._rest["lanes"] = _AGAIN // 4
            self._gently = True
        self._log_change("fewer embedding requests at once", fix=f"{self._variables}_LANES={self.lanes}")

    def _log_change(self, event: str, *, fix: str) -> None:
        dials = {"lanes": self.lanes, "texts": self.rows, "bytes": self.most_bytes}
        _log.info(event, service=self.service, fix=fix, **dials)


def _release(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)


_guard = threading.Lock()
_paces: "WeakValueDictionary[tuple[str, str], Pace]" = WeakValueDictionary()
"""As long as a client has it: a process keeps its clients."""
_unpaced: "WeakKeyDictionary[object, Pace]" = WeakKeyDictionary()


def pace_of(service: object, name: str) -> Pace:
    """Return the pace of a service; one that has none of its own gets one for as long as it lives."""
    if isinstance(service, Paced):
        return service.pace
    pace = Pace(name, most_lanes=4, most_rows=1000, first_rows=256)
    try:
        return _unpaced.setdefault(service, pace)
    except TypeError:
        # It cannot be a key, as a dataclass with `eq`: it begins anew each time.
        return pace
