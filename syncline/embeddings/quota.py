"""The quota of one service: its requests and tokens per minute, for all event loops of the process."""

import threading
import time
from collections.abc import Callable
from typing import ClassVar, Final
from weakref import WeakValueDictionary

__all__ = ["Quota"]

_MINUTE: Final = 60.0
_MARGIN: Final = 1.02
"""Requests travel for different times: two that are sent a second apart may arrive closer together."""


class Quota:
    """Spaces requests evenly, so that no minute has more of them, or of their tokens. Thread-safe."""

    _all: ClassVar["WeakValueDictionary[object, Quota]"] = WeakValueDictionary()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        variables: str = "SYNCLINE_EMBEDDING",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Limit requests and tokens per minute, or neither. `variables` begin the names of its settings."""
        self._clock, self._variables = clock, variables
        self._lock = threading.Lock()
        self._request = _apart(requests_per_minute)
        self._token = _apart(tokens_per_minute)
        self._requests_from = self._tokens_from = clock()

    @classmethod
    def of(
        cls,
        service: object,
        *,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        variables: str = "SYNCLINE_EMBEDDING",
    ) -> "Quota":
        """Return the process's one quota of a service: a hashable that tells it from others.

        It has the limits of the first caller, and lives as long as somebody has it.
        """
        with cls._guard:
            quota = cls._all.get(service)
            if quota is None:
                quota = cls(
                    requests_per_minute=requests_per_minute,
                    tokens_per_minute=tokens_per_minute,
                    variables=variables,
                )
                cls._all[service] = quota
            return quota

    def book(self, tokens: float) -> float:
        """Book a request of about so many tokens; return 0 if it may be sent now.

        Otherwise nothing is booked, and the seconds are returned after which to ask again.
        """
        with self._lock:
            now = self._clock()
            wait = max(self._requests_from, self._tokens_from) - now
            if wait > 0:
                return wait
            if self._request:
                self._requests_from = now + self._request
            if self._token:
                self._tokens_from = now + self._token * tokens
            return 0.0

    @property
    def because(self) -> str:
        """The setting that makes the next request wait longest."""
        limits = "REQUESTS" if self._requests_from >= self._tokens_from else "TOKENS"
        return f"{self._variables}_{limits}_PER_MINUTE"

    def correct(self, tokens: float) -> None:
        """Book so many tokens more than a request was booked with, or fewer if negative."""
        with self._lock:
            self._tokens_from += self._token * tokens


def _apart(per_minute: float | None) -> float:
    return 0.0 if per_minute is None else _MINUTE / per_minute * _MARGIN
