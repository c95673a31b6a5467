"""State of each check of a worker's probes: whether it is red, since when, what was found, how to fix it."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import AwareDatetime

from syncline import metrics
from syncline.logs import get_log
from syncline.messages.base import Message
from syncline.provider import Meter

__all__ = ["PATIENCE", "Check", "ProbeAnswer", "ProbeCheck", "answer"]

PATIENCE: Final = 5.0
"""Seconds that a check fails before it is red: a connection that is replaced is no outage."""


class ProbeCheck(Message):
    """One check, as a probe answers it."""

    name: str
    red: bool
    since: AwareDatetime | None = None
    """Since when it is red."""
    found: str | None = None
    fix: str | None = None


class ProbeAnswer(Message):
    """What `/healthz` or `/readyz` answers."""

    red: bool
    worker: str
    """Identity `syncline@host:pid`."""
    checks: tuple[ProbeCheck, ...]
    """The red ones first."""


class Check:
    """State of one check. It is red until it was looked at, and when it has failed for `patience` seconds.

    Used in one event loop, that of the probes.
    """

    def __init__(self, name: str, *, fix: str, meter: Meter, patience: float = PATIENCE) -> None:
        self.name, self._fix, self._meter, self._patience = name, fix, meter, patience
        self._failing_since: float | None = None
        self._red_since: datetime | None = datetime.now(UTC)
        self._looked = False
        self._found: str | None = "not looked at yet"
        self._measure()

    @property
    def red(self) -> bool:
        """Whether it is red."""
        return self._red_since is not None

    @property
    def looked(self) -> bool:
        """Whether it has been looked at."""
        return self._looked

    @property
    def failing(self) -> bool:
        """Whether the last look failed."""
        return self._failing_since is not None

    def passed(self, found: str | None = None) -> None:
        """Note a look that found nothing wrong."""
        if self.red and self._looked:
            get_log().info("probe is green again", check=self.name)
        self._looked, self._failing_since, self._red_since, self._found = True, None, None, found
        self._measure()

    def failed(self, problem: str, *, fix: str | None = None, since: float | None = None) -> None:
        """Note a look that failed; `since`: when it began, on the monotonic clock."""
        now = time.monotonic()
        self._fix = fix or self._fix
        self._found = problem
        if self._failing_since is None:
            self._failing_since = now if since is None else since
        lasts = now - self._failing_since
        if lasts >= self._patience and (self._red_since is None or not self._looked):
            self._red_since = self._red_since or datetime.now(UTC) - timedelta(seconds=lasts)
            self._looked = True
            get_log().warning("probe is red", check=self.name, problem=problem, fix=self._fix)
        self._measure()

    def answer(self) -> ProbeCheck:
        """Return what a probe answers of it."""
        red = self.red
        shown = self._found if red or not self.failing else None
        return ProbeCheck(
            name=self.name, red=red, since=self._red_since, found=shown, fix=self._fix if red else None
        )

    def _measure(self) -> None:
        metrics.PROBE_RED.set(self._meter, float(self.red), check=self.name)


def answer(worker: str, checks: Iterable[Check]) -> ProbeAnswer:
    """Return what a probe answers: red if one of the checks is."""
    told = sorted((check.answer() for check in checks), key=lambda check: not check.red)
    return ProbeAnswer(red=any(check.red for check in told), worker=worker, checks=tuple(told))
