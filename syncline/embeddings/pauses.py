"""Pauses that a service asks for in the headers of its answers, in every form that services write them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["Pause", "pause_asked"]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_AN_EPOCH: Final = 1e9
"""No pause lasts that many seconds: it is a time since 1970, in seconds or in milliseconds."""
_LONGEST: Final = 86_400.0
_LIMITED: Final = ("requests", "tokens")

Pause = tuple[float, str]
"""Seconds, and the header that said so."""


def pause_asked(headers: Mapping[str, str], *, refused: bool, now: datetime | None = None) -> Pause | None:
    """Return how long no request should be sent; None if the answer asks for no pause.

    `headers` have lower-case names. After a refusal: `retry-after-ms`, `Retry-After` (seconds or a date), or
    the reset of the limit that is used up. After a success only the latter: the next request would be
    refused. A date counts from the answer's own `Date`, since clocks differ. A day at most.
    """
    now = _date(headers.get("date", "")) or now or datetime.now(UTC)
    if refused:
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            seconds = _seconds(headers.get(name, ""), now, unit=unit)
            if seconds is not None:
                return seconds, name
    resets = [pause for kind in _LIMITED if (pause := _reset(headers, f"-{kind}", now, refused=refused))]
    resets = resets or [pause for pause in (_reset(headers, "", now, refused=refused),) if pause]
    return max(resets, default=None)


def _reset(headers: Mapping[str, str], kind: str, now: datetime, *, refused: bool) -> Pause | None:
    """Return the reset of one limit if it is used up, or if that is unknown after a refusal."""
    for prefix in ("x-ratelimit", "ratelimit"):
        name = f"{prefix}-reset{kind}"
        left = headers.get(f"{prefix}-remaining{kind}", "").strip()
        seconds = _seconds(headers.get(name, ""), now, unit=1.0)
        if seconds is None:
            continue
        used_up = float(left) < 1 if _NUMBER.fullmatch(left) else refused and not left
        if used_up:
            return seconds, name
    return None


def _seconds(text: str, now: datetime, *, unit: float) -> float | None:
    """Return the seconds that a header says: a number, a duration such as `1m30s`, a time or a date."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        seconds = float(text) * unit
        if seconds > _AN_EPOCH:
            seconds = (seconds / 1000 if seconds > _AN_EPOCH * 100 else seconds) - now.timestamp()
    elif text and not _PART.sub("", text):
        seconds = sum(float(number) * _UNITS[name] for number, name in _PART.findall(text))
    else:
        date = _date(text)
        if date is None:
            return None
        seconds = (date - now).total_seconds()
    return min(max(seconds, 0.0), _LONGEST)


def _date(text: str) -> datetime | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(text)
        except (ValueError, TypeError, IndexError):
            continue
        return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return None
