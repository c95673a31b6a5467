"""The gate of one service: which request may be sent when, for all collections and graphs of the process."""

import threading
import time
from collections.abc import Callable
from typing import ClassVar, Final
from weakref import WeakValueDictionary

__all__ = ["Gate", "Held"]

_MINUTE: Final = 60.0
_MARGIN: Final = 1.02
"""Requests travel for different times: two that are sent a second apart may arrive closer together."""


class Held(Exception):
    """No request may be sent for `seconds`; `because`: which limit or header said so."""

    def __init__(self, seconds: float, because: str) -> None:
        self.seconds, self.because = seconds, because
        super().__init__(because)


class Gate:
    """Spaces requests evenly by the limits of a minute, and lets none pass during a pause. Thread-safe."""

    _all: ClassVar["WeakValueDictionary[object, Gate]"] = WeakValueDictionary()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Limit requests and tokens per minute, or neither."""
        self._clock = clock
        self._lock = threading.Lock()
        self._request = _apart(requests_per_minute)
        self._token = _apart(tokens_per_minute)
        self._requests_from = self._tokens_from = self._held_until = clock()
        self._because = ""

    @classmethod
    def of(
        cls, service: object, *, requests_per_minute: float | None, tokens_per_minute: float | None
    ) -> "Gate":
        """Return the process's one gate of a service: a hashable that tells it from others.

        It has the limits of the first caller, and lives as long as somebody holds it.
        """
        with cls._guard:
            gate = cls._all.get(service)
            if gate is None:
                gate = cls(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute)
                cls._all[service] = gate
            return gate

    def hold(self, seconds: float, because: str) -> None:
        """Let no request pass for so long; a longer pause stays."""
        with self._lock:
            until = self._clock() + seconds
            if until > self._held_until:
                self._held_until, self._because = until, because

    @property
    def held_for(self) -> float:
        """Seconds until the pause ends; 0 without one."""
        return max(0.0, self._held_until - self._clock())

    @property
    def because(self) -> str:
        """Why the last pause was asked for."""
        return self._because

    def enter(self, tokens: float, *, patience: float) -> float:
        """Book a request of about so many tokens, and return in how many seconds it may be sent.

        Raises Held, and books nothing, if that is more than `patience`. After the wait, ask `held_for`: a
        pause may have begun meanwhile.
        """
        with self._lock:
            now = self._clock()
            waits = {
                self._because: self._held_until,
                "SYNCLINE_EMBEDDING_REQUESTS_PER_MINUTE": self._requests_from,
                "SYNCLINE_EMBEDDING_TOKENS_PER_MINUTE": self._tokens_from,
            }
            because, at = max(waits.items(), key=lambda wait: wait[1])
            at = max(at, now)
            if at - now > patience:
                raise Held(at - now, because)
            self._requests_from = at + self._request
            self._tokens_from = at + self._token * tokens
            return at - now

    def correct(self, tokens: float) -> None:
        """Book so many tokens more than a request was booked with, or fewer if negative."""
        with self._lock:
            self._tokens_from += self._token * tokens


def _apart(per_minute: float | None) -> float:
    return 0.0 if per_minute is None else _MINUTE / per_minute * _MARGIN
