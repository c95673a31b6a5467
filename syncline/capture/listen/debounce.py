"""Trigger debouncing: decides which schemas of one write-db to run, and when. No clock, no I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Snapshot", "TriggerDebouncer"]

_IMMINENT: Final = 0.05
"""If a run is due within these seconds, muting its writers is not worth a statement."""
_LONGEST_HUSH: Final = 4.0
"""Longest mute in seconds: the trigger treats more than 5 as an error."""


@dataclass(frozen=True)
class Snapshot:
    """Write-db transactions at one moment: all below `xmin` have ended, none from `xmax` on has begun."""

    xmin: int
    xmax: int


@dataclass
class _Wake:
    floor: int
    """Runs have seen everything below this transaction."""
    due: float | None = None
    """When a run is due."""
    last: float = -math.inf
    """When the last one was started."""
    lowest: int | None = None
    """The lowest and highest transaction that runs have yet to see; None when they have seen all."""
    highest: int = 0
    muted_until: float = -math.inf
    ahead: bool = False
    """Whether it was beyond all started transactions at the last check."""
    muted: bool = False
    """Whether writers were muted since the last run, so that their transactions are unknown."""

    def add(self, lowest: int, highest: int) -> None:
        """Add transactions that a run must see."""
        self.lowest = lowest if self.lowest is None else min(lowest, self.lowest)
        self.highest = max(highest, self.highest)


class TriggerDebouncer:
    """Pending runs of one write-db, by schema.

    The first change starts a run at once; changes in the next `window` seconds start one more at its end. A
    run sees only what is below the horizon: a change above it is held until the horizon has moved.
    """

    def __init__(self, seen: Snapshot, *, window: float) -> None:
        self._window = window
        self._wakes: dict[str, _Wake] = {}
        self._horizon = seen.xmin

    @property
    def held(self) -> bool:
        """Whether any change waits for the horizon."""
        return any(wake.lowest is not None and wake.due is None for wake in self._wakes.values())

    def note(self, schema: str, lowest: int, highest: int, *, now: float) -> float:
        """Record that transactions of the schema must be seen by a run.

        Return for how many seconds, if any, its writers may be muted: a run is due anyway.
        """
        wake = self._wakes.setdefault(schema, _Wake(floor=self._horizon))
        wake.floor = min(wake.floor, lowest)
        wake.add(lowest, highest)
        if wake.due is None:
            wake.due = max(now, wake.last + self._window)
        if now < wake.muted_until:
            return 0
        left = wake.due - now
        if left < 0:
            # Other schemas are due first.
            return self._window
        return min(left, _LONGEST_HUSH) if left > _IMMINENT else 0

    def throttle(self, schema: str, *, until: float) -> None:
        """Record that the schema's writers are muted; no run before `until` has seen all changes."""
        wake = self._wakes.setdefault(schema, _Wake(floor=self._horizon))
        wake.muted_until, wake.muted = until, True
        if wake.due is None or until - self._window < wake.due < until:
            wake.due = max(until, wake.last + self._window)

    def following(self) -> float | None:
        """Return when the next run is due."""
        return min((wake.due for wake in self._wakes.values() if wake.due is not None), default=None)

    def due(self, now: float) -> str | None:
        """Return the schema whose run has been due for longest."""
        return next(iter(self.all_due(now)), None)

    def all_due(self, now: float) -> Sequence[str]:
        """Return the schemas whose run is due, the longest due first."""
        dues = [(wake.due, schema) for schema, wake in self._wakes.items() if wake.due is not None]
        return [schema for due, schema in sorted(dues) if due <= now]

    def started(self, schema: str, seen: Snapshot, *, now: float) -> None:
        """Record that a run is being started, which sees at least this snapshot."""
        wake = self._wakes[schema]
        if wake.muted:
            # An open transaction may have written while muted.
            wake.add(seen.xmin, seen.xmax - 1)
        wake.last, wake.floor = now, seen.xmin
        if now < wake.muted_until:
            wake.due = max(wake.muted_until, now + self._window)
            return
        wake.due, wake.muted = None, False
        if wake.highest < seen.xmin:
            wake.lowest, wake.highest = None, 0
        elif wake.lowest is not None:
            wake.lowest = max(wake.lowest, seen.xmin)

    def postpone(self, schema: str, *, until: float) -> None:
        """Record that the run could not be started; it is due again at `until`, whatever arrives before."""
        self._wakes[schema].due = until

    def drop(self, schema: str) -> None:
        """Remove the schema."""
        self._wakes.pop(schema, None)

    def moved(self, seen: Snapshot, *, now: float) -> None:
        """Start a run for each schema whose held changes are now below the horizon."""
        self._horizon = seen.xmin
        for schema, wake in list(self._wakes.items()):
            _disbelieve(wake, seen)
            if wake.due is not None:
                continue
            if wake.lowest is None:
                if wake.last + self._window <= now:
                    del self._wakes[schema]
            elif wake.lowest < seen.xmin:
                wake.due = max(now, wake.last + self._window)

    def heard_below(self, seen: Snapshot) -> int:
        """Return the transaction below which runs have seen every change."""
        waiting = (w.floor for w in self._wakes.values() if w.due is not None or w.lowest is not None)
        return min(waiting, default=seen.xmin)


def _disbelieve(wake: _Wake, seen: Snapshot) -> None:
    """Limit a claim about a future transaction to those that have begun: any role can send a notification.

    One check is not enough: a transaction may have begun and notified after the snapshot was taken.
    """
    ahead = wake.lowest is not None and wake.highest >= seen.xmax
    if ahead and wake.ahead and wake.lowest is not None:
        wake.lowest, wake.highest = min(wake.lowest, seen.xmax - 1), seen.xmax - 1
        ahead = False
    wake.ahead = ahead
