"""Trigger debouncing: decides which schemas of one write-db to run, and when. No clock, no I/O."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Snapshot", "TriggerDebouncer"]

_IMMINENT: Final = 0.05
"""If a run is due within these seconds, muting its writers is not worth a statement."""
_LONGEST_MUTE: Final = 4.0
"""Longest mute in seconds: the trigger treats more than 5 as an error."""


@dataclass(frozen=True)
class Snapshot:
    """Write-db transactions at one moment: all below `xmin` have ended, none from `xmax` on has begun."""

    xmin: int
    xmax: int


@dataclass
class _Due:
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
        self._by_schema: dict[str, _Due] = {}
        self._horizon = seen.xmin

    @property
    def held(self) -> bool:
        """Whether any change waits for the horizon."""
        return any(entry.lowest is not None and entry.due is None for entry in self._by_schema.values())

    def note(self, schema: str, lowest: int, highest: int, *, now: float) -> float:
        """Record that transactions of the schema must be seen by a run.

        Return for how many seconds, if any, its writers may be muted: a run is due anyway.
        """
        entry = self._by_schema.setdefault(schema, _Due(floor=self._horizon))
        entry.floor = min(entry.floor, lowest)
        entry.add(lowest, highest)
        if entry.due is None:
            entry.due = max(now, entry.last + self._window)
        if now < entry.muted_until:
            return 0
        left = entry.due - now
        if left < 0:
            # Other schemas are due first.
            return self._window
        return min(left, _LONGEST_MUTE) if left > _IMMINENT else 0

    def throttle(self, schema: str, *, until: float) -> None:
        """Record that the schema's writers are muted; no run before `until` has seen all changes."""
        entry = self._by_schema.setdefault(schema, _Due(floor=self._horizon))
        entry.muted_until, entry.muted = until, True
        if entry.due is None or until - self._window < entry.due < until:
            entry.due = max(until, entry.last + self._window)

    def following(self) -> float | None:
        """Return when the next run is due."""
        return min((entry.due for entry in self._by_schema.values() if entry.due is not None), default=None)

    def due(self, now: float) -> str | None:
        """Return the schema whose run has been due for longest."""
        return next(iter(self.all_due(now)), None)

    def all_due(self, now: float) -> Sequence[str]:
        """Return the schemas whose run is due, the longest due first."""
        dues = [(entry.due, schema) for schema, entry in self._by_schema.items() if entry.due is not None]
        return [schema for due, schema in sorted(dues) if due <= now]

    def started(self, schema: str, seen: Snapshot, *, now: float) -> None:
        """Record that a run is being started, which sees at least this snapshot."""
        entry = self._by_schema[schema]
        if entry.muted:
            # An open transaction may have written while muted.
            entry.add(seen.xmin, seen.xmax - 1)
        entry.last, entry.floor = now, seen.xmin
        if now < entry.muted_until:
            entry.due = max(entry.muted_until, now + self._window)
            return
        entry.due, entry.muted = None, False
        if entry.highest < seen.xmin:
            entry.lowest, entry.highest = None, 0
        elif entry.lowest is not None:
            entry.lowest = max(entry.lowest, seen.xmin)

    def floor(self, schema: str) -> int:
        """Return the transaction below which runs have seen every change of a schema that is due."""
        return self._by_schema[schema].floor

    def highest(self, schema: str) -> int:
        """Return the highest transaction of a schema that runs have yet to see."""
        return self._by_schema[schema].highest

    def postpone(self, schema: str, *, until: float) -> None:
        """Record that the run could not be started; it is due again at `until`, whatever arrives before."""
        self._by_schema[schema].due = until

    def drop(self, schema: str) -> None:
        """Remove the schema."""
        self._by_schema.pop(schema, None)

    def moved(self, seen: Snapshot, *, now: float) -> None:
        """Start a run for each schema whose held changes are now below the horizon."""
        self._horizon = seen.xmin
        for schema, entry in list(self._by_schema.items()):
            _disbelieve(entry, seen)
            if entry.due is not None:
                continue
            if entry.lowest is None:
                if entry.last + self._window <= now:
                    del self._by_schema[schema]
            elif entry.lowest < seen.xmin:
                entry.due = max(now, entry.last + self._window)

    def low_watermark(self, seen: Snapshot) -> int:
        """Return the transaction below which runs have seen every change."""
        waiting = (w.floor for w in self._by_schema.values() if w.due is not None or w.lowest is not None)
        return min(waiting, default=seen.xmin)


def _disbelieve(entry: _Due, seen: Snapshot) -> None:
    """Limit a claim about a future transaction to those that have begun: any role can send a notification.

    One check is not enough: a transaction may have begun and notified after the snapshot was taken.
    """
    ahead = entry.lowest is not None and entry.highest >= seen.xmax
    if ahead and entry.ahead and entry.lowest is not None:
        entry.lowest, entry.highest = min(entry.lowest, seen.xmax - 1), seen.xmax - 1
        ahead = False
    entry.ahead = ahead
