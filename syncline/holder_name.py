"""The name of a session while it holds a graph's lock: it says which run and attempt does, and since when.

It is what `pg_stat_activity.application_name` shows, as in `syncline 0198f7c2-… #2 11-29 06:40Z`.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from syncline.sqltext import string_literal

__all__ = ["HolderName", "holder_name_sql"]

_RUN: Final = r"[0-9A-Za-z-]{1,36}"
_NAME: Final = re.compile(
    rf"syncline (?P<run>{_RUN}) #(?P<attempt>[0-9]{{1,9}})"
    r"(?: (?P<month>[0-9]{2})-(?P<day>[0-9]{2}) (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})Z)?",
    re.ASCII,
)
_BYTES: Final = 63


@dataclass(frozen=True, kw_only=True)
class HolderName:
    """What such a name says. Anybody may call a session so: believe it of one's own role alone."""

    run_id: str
    attempt: int
    since: datetime | None
    """When the lock was taken, to the minute."""

    @classmethod
    def of(cls, application_name: str | None, *, now: datetime) -> Self | None:
        """Return what the name of a session says at `now`, the server's time; None if it is no such name."""
        said = _NAME.match(application_name or "")
        if said is None:
            return None
        since = None
        if said["month"] is not None:
            since = _latest(*(int(said[part]) for part in ("month", "day", "hour", "minute")), now=now)
        return cls(run_id=said["run"], attempt=int(said["attempt"]), since=since)


def holder_name_sql(run_id: str, attempt: int) -> str | None:
    """Return the SQL expression of the name, by the server's clock; None for what is no id of a run."""
    if re.fullmatch(_RUN, run_id, re.ASCII) is None:
        return None
    who = string_literal(f"syncline {run_id} #{attempt}")
    when = "pg_catalog.to_char(pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', ' MM-DD HH24:MI\"Z\"')"
    return f"pg_catalog.left({who} || {when}, {_BYTES})"


def _latest(month: int, day: int, hour: int, minute: int, *, now: datetime) -> datetime | None:
    for year in (now.year, now.year - 1):
        try:
            then = datetime(year, month, day, hour, minute, tzinfo=UTC)
        except ValueError:  # the 29th of February of another year, or no date at all
            continue
        if then <= now + timedelta(days=1):
            return then
    return None
