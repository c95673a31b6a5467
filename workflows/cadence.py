"""Cadence of adaptive graphs: the interval grows with the idle time and never exceeds it."""

from datetime import datetime

from syncline.messages.sync import Cadence, CadenceRules

__all__ = ["at_base", "following"]


def following(current: Cadence | None, rules: CadenceRules, *, idle: bool, now: datetime) -> Cadence:
    """Return the cadence after a run that ends at `now`; `idle`: it had nothing to do."""
    if current is not None and current.fingerprint != rules.fingerprint:
        # The graph's record has changed, and its Schedule with it.
        current = None
    idle_since = ((current and current.idle_since) or now) if idle else None
    seconds = 0.0 if idle_since is None else (now - idle_since).total_seconds()
    base = rules.intervals[0]
    every = max((step for step in rules.intervals if step <= seconds), default=base)
    if current is not None and current.every_seconds == every:
        return current.model_copy(
            update={"idle_since": idle_since, "reason": _reason(every, rules, idle_since)}
        )
    return Cadence(
        every_seconds=every,
        base_seconds=base,
        reason=_reason(every, rules, idle_since),
        since=now,
        fingerprint=rules.fingerprint,
        idle_since=idle_since,
    )


def at_base(current: Cadence, now: datetime) -> Cadence:
    """Return the cadence after a run that failed: the base interval, as if the graph had never been idle."""
    return current.model_copy(
        update={
            "every_seconds": current.base_seconds,
            "reason": "At its base, because a run failed.",
            "since": current.since if current.every_seconds == current.base_seconds else now,
        }
    )


def _reason(every: int, rules: CadenceRules, idle_since: datetime | None) -> str:
    if rules.unheard is not None:
        return f"At its base, because a change would not be announced: {rules.unheard}."
    if idle_since is None:
        return "At its base, because the last run had work, or work is left."
    since = f"idle since {idle_since:%Y-%m-%d %H:%M:%S} UTC"
    if every == rules.intervals[0]:
        return f"At its base: {since}, not yet long enough."
    return f"Slowed down: {since}. A change puts it back to its base."
