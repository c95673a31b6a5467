"""Times of a cron expression, with the semantics of Temporal's Schedules.

All fields must match, including both day of month and day of week; a sixth field is the year, with a seventh
the first is seconds. A time skipped by a daylight saving change does not occur.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice, product
from typing import Final
from zoneinfo import ZoneInfo

__all__ = ["next_times"]

_LAST_YEAR: Final = 2100
"""Last year that Temporal accepts and computes."""
_MOST: Final = 10
_NAMED: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
_DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PART: Final = re.compile(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?")


def next_times(expression: str, *, after: datetime) -> Sequence[datetime] | None:
    """Return the next ten times of a cron expression after `after`; fewer or none if 2100 ends before.

    None for an expression that this parser does not support: Temporal may still accept it.
    """
    zone: tzinfo = UTC
    rest = expression.strip()
    try:
        if rest.startswith(("TZ=", "CRON_TZ=")):
            named, _, rest = rest.partition(" ")
            zone = ZoneInfo(named.partition("=")[2])
        rest = rest.partition("#")[0].strip()
        if rest.startswith("@every"):
            found = _interval_times(rest.removeprefix("@every").strip(), after)
        else:
            found = _Calendar.parsed(_NAMED.get(rest, rest)).times(after, zone)
        return list(islice(found, _MOST))
    except (ValueError, KeyError, OSError):  # also raised for an unknown or missing time zone
        return None


@dataclass(frozen=True, kw_only=True)
class _Calendar:
    """The matching values of each field."""

    seconds: Sequence[int]
    minutes: Sequence[int]
    hours: Sequence[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    years: frozenset[int]

    @classmethod
    def parsed(cls, expression: str) -> "_Calendar":
        """Parse an expression of five to seven fields, or raise ValueError."""
        fields = expression.split()
        if not 5 <= len(fields) <= 7:
            raise ValueError("a cron expression has five to seven fields")
        second = fields.pop(0) if len(fields) == 7 else "0"
        minute, hour, day, month, weekday, *year = fields
        return cls(
            seconds=sorted(_values(second, 0, 59)),
            minutes=sorted(_values(minute, 0, 59)),
            hours=sorted(_values(hour, 0, 23)),
            days=_values(day, 1, 31),
            months=_values(month, 1, 12, _MONTHS),
            weekdays=frozenset(value % 7 for value in _values(weekday, 0, 7, _DAYS)),
            years=_values(year[0] if year else "*", 2000, _LAST_YEAR),
        )

    def times(self, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Yield the times after `after` in order, until the end of the last year."""
        day = after.astimezone(zone).date()
        while day.year <= _LAST_YEAR:
            if self._comes_on(day):
                for hour, minute, second in product(self.hours, self.minutes, self.seconds):
                    local = datetime.combine(day, time(hour, minute, second), zone)
                    moment = local.astimezone(UTC)
                    if moment > after and moment.astimezone(zone).time() == local.time():
                        yield moment
            day += timedelta(days=1)

    def _comes_on(self, day: date) -> bool:
        return (
            day.month in self.months
            and day.day in self.days
            and day.isoweekday() % 7 in self.weekdays
            and day.year in self.years
        )


def _values(field: str, least: int, most: int, words: Sequence[str] = ()) -> frozenset[int]:
    """Return the values that a field matches, or raise ValueError."""
    found: set[int] = set()
    for part in field.split(","):
        parsed = _PART.fullmatch(part)
        if parsed is None:
            raise ValueError("a field of the cron expression is invalid")
        whole, first, last, step = parsed.groups()
        if whole == "*":
            # Day 7 of the week is Sunday again.
            start, end = least, 6 if words is _DAYS else most
        else:
            start = _value(first, least, words)
            end = _value(last, least, words) if last else most if step else start
        if not least <= start <= end <= most or step == "0":
            raise ValueError("a field of the cron expression is out of range")
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


def _value(word: str, least: int, words: Sequence[str]) -> int:
    if word.isdecimal():
        return int(word)
    named = [number for number, name in enumerate(words, least) if name.startswith(word.lower())]
    if len(word) < 3 or len(named) != 1:
        raise ValueError("a name in the cron expression is unknown")
    return named[0]


def _interval_times(typed: str, after: datetime) -> Iterator[datetime]:
    """Yield the times of `@every`, counted from the epoch."""
    every, _, phase = typed.partition("/")
    step, offset = _seconds(every), _seconds(phase) if phase else 0.0
    if step < 1:
        raise ValueError("an interval must be at least one second")
    number = (after.timestamp() - offset) // step + 1
    while (second := number * step + offset) < datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp():
        yield datetime.fromtimestamp(second, UTC)
        number += 1


def _seconds(typed: str) -> float:
    if re.fullmatch(r"(\d+(\.\d+)?[dhms])+", typed) is None:
        raise ValueError("a duration is invalid")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", typed))
