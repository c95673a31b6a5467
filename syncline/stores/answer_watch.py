"""Answer watch: while requests to an HTTP service are open for long, probes it over other connections.

A slow request may take as long as its timeout allows. It is given up if the service answers no probe, or if
it answered none for a while: after a network fault a connection may stay silent although the service is back.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar, runtime_checkable

import httpx

__all__ = ["AnswerPatience", "AnswerWatch", "Unanswered", "Watched", "unreached"]

T = TypeVar("T")

_FORGOTTEN: Final = 60.0
"""Seconds without a probe after which it is no longer known since when a service is silent."""


@dataclass(frozen=True, kw_only=True)
class AnswerPatience:
    """How long to wait for a service, in seconds."""

    open: float = 2.0
    """How long a request is open before the service is probed."""
    apart: float = 1.0
    """Between two probes while none is answered: each may be slow, or lost."""
    pause: float = 3.0
    """Between an answered probe and the next one."""
    gap: float = 2.0
    """Time without an answered probe after which the service counts as silent."""
    late: float = 3.0
    """What requests have to end that were open while the service was silent, once it answers again."""
    silent: float = 8.0
    """Time without an answered probe after which requests are given up."""
    known: float = 3.0
    """The same before a request to a service that was silent: it is sent once a probe is answered."""


class Unanswered(Exception):
    """The service does not answer, or did not for a while; `since`: when the request was sent."""

    def __init__(self, since: datetime, *, back: bool = False) -> None:
        self.since = since
        lasts = (datetime.now(UTC) - since).total_seconds()
        again = ", and answers again, but not this request" if back else ""
        super().__init__(f"it has not answered since {since:%Y-%m-%d %H:%M:%S} UTC, for {lasts:.0f} s{again}")


@runtime_checkable
class Watched(Protocol):
    """A service whose requests are watched."""

    @property
    def silent_since(self) -> datetime | None:
        """Since when it has answered neither request nor probe; None if it answers, as far as is known."""

    def doubt(self) -> None:
        """Send the next request only once a probe is answered: another worker may have found it silent."""


class AnswerWatch:
    """The watch of one service, in one event loop.

    `probe` returns whether the service answers, also if that cannot be told, within the seconds of `silent`.
    It uses a new connection: a pooled one may be dead.
    """

    def __init__(self, probe: Callable[[], Awaitable[bool]], *, patience: AnswerPatience) -> None:
        self._probe, self._patience = probe, patience
        self._open: dict[asyncio.Timeout, float] = {}  # request -> when it was sent, the oldest first
        self._given_up: dict[asyncio.Timeout, Unanswered] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self._probes: set[asyncio.Task[None]] = set()
        self._answered_at = self._silent_at = 0.0
        self._doubted = False
        self.silent_since: datetime | None = None
        """Since when the service has answered neither a request nor a probe; None as far as is known."""

    async def answer(self, request: Coroutine[object, object, T]) -> T:
        """Return the answer to the request, or raise Unanswered; the request is then cancelled."""
        loop = asyncio.get_running_loop()
        if self.silent_since is not None or self._doubted:
            if loop.time() - self._silent_at > _FORGOTTEN:
                # Nobody has looked since, in this process: it may have answered others.
                self.silent_since = None
            since = self.silent_since or datetime.now(UTC)
            try:
                # A refused probe is no silence: the request will be refused as quickly, and say why.
                answered = await self._gap(self._patience.known, refused=True) is not None
            except BaseException:
                request.close()
                raise
            if not answered:
                request.close()
                self.silent_since, self._silent_at = since, loop.time()
                raise Unanswered(since)
            self.silent_since, self._doubted = None, False
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._open[scope] = loop.time()
                if self._timer is None and self._watching is None:
                    self._timer = loop.call_later(self._patience.open, self._due)
                result = await request
            self._answered_at, self.silent_since = loop.time(), None
        except TimeoutError:
            if scope not in self._given_up:
                raise
            raise self._given_up[scope] from None
        finally:
            self._open.pop(scope, None)
            self._given_up.pop(scope, None)
            if not self._open and self._timer is not None:
                self._timer.cancel()
                self._timer = None
        return result

    def doubt(self) -> None:
        """Send the next request only once a probe is answered."""
        self._doubted = True

    async def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = self._probes if self._watching is None else {*self._probes, self._watching}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _due(self) -> None:
        self._timer = None
        if not self._open:
            return
        loop = asyncio.get_running_loop()
        left = next(iter(self._open.values())) + self._patience.open - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._due)
        else:
            self._watching = loop.create_task(self._watch())

    async def _watch(self) -> None:
        """Probe until no request is open, or all are given up."""
        try:
            while self._open:
                gap = await self._gap(self._patience.silent)
                if gap is None:
                    self._silent_at = asyncio.get_running_loop().time()
                    self._give_up(list(self._open))
                    return
                doubted, self.silent_since = list(self._open), None
                if gap >= self._patience.gap:
                    await asyncio.sleep(self._patience.late)
                    self._give_up(doubted, back=True)
                await asyncio.sleep(self._patience.pause)
        finally:
            self._watching = None

    def _give_up(self, requests: list[asyncio.Timeout], *, back: bool = False) -> None:
        loop = asyncio.get_running_loop()
        for request in requests:
            if request in self._open and request not in self._given_up:
                self._given_up[request] = Unanswered(self._sent_at(request), back=back)
                request.reschedule(loop.time())

    def _sent_at(self, request: asyncio.Timeout) -> datetime:
        return datetime.now(UTC) - timedelta(seconds=asyncio.get_running_loop().time() - self._open[request])

    async def _gap(self, seconds: float, *, refused: bool = False) -> float | None:
        """Probe until a probe is answered, or `refused`; return how long after the first that one was sent.

        None if none is answered within `seconds`. A slow answer to the first probe is no gap, nor is an
        answer to a request: a service may accept no more connections and still serve those that it has.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        answered: asyncio.Future[float] = loop.create_future()

        async def probe(sent: float) -> None:
            if (await self._answers() or refused) and not answered.done():
                answered.set_result(sent - began)

        # Rounds, not a deadline: while this process stands still, nobody has a chance to answer.
        for _ in range(max(1, round(seconds / self._patience.apart))):
            # Not cancelled once another is answered: that may leave a socket open that is just connected.
            task = loop.create_task(probe(loop.time()))
            self._probes.add(task)
            task.add_done_callback(self._probes.discard)
            await asyncio.wait([answered], timeout=self._patience.apart)
            if answered.done():
                return answered.result()
            if self._answered_at > began:
                return 0.0
            if self._open and self.silent_since is None and loop.time() - began >= self._patience.gap:
                self.silent_since = self._sent_at(next(iter(self._open)))
        return None

    async def _answers(self) -> bool:
        try:
            return await self._probe()
        except Exception:  # a failed check says nothing about the service
            return True


def unreached(error: Exception | None, *, busy_answers: bool) -> bool:
    """Return whether this error of a probe by httpx shows that the service does not answer.

    `busy_answers`: whether a connection that is accepted counts as an answer.
    """
    if isinstance(error, httpx.ReadTimeout):
        return not busy_answers
    if not isinstance(error, httpx.TimeoutException | httpx.NetworkError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        # Its name does not resolve just now, or it answers with a certificate that is not accepted.
        if isinstance(cause, socket.gaierror | ssl.SSLError):
            return False
        cause = cause.__cause__ or cause.__context__
    return True
