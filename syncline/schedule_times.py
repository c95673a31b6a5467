"""At which times a Schedule starts runs of its own accord, as intervals and offsets in seconds."""

from collections.abc import Sequence
from datetime import datetime

__all__ = ["cron_times", "is_on_time"]


def is_on_time(due: datetime, times: Sequence[tuple[int, int]]) -> bool:
    """Return whether a Schedule with one of these intervals may have a run of its own then.

    Without intervals its times are not known, and any is taken for one of them.
    """
    second = int(due.timestamp())
    return not times or any(second % every == offset for every, offset in times)


def cron_times(expression: str) -> list[tuple[int, int]]:
    """Return the interval within which the times of a cron expression are: whole minutes, or none are known.

    An expression of seven fields has seconds; `@every` counts from any of them.
    """
    fields = [field for field in expression.split() if not field.startswith(("TZ=", "CRON_TZ="))]
    whole_minutes = len(fields) in (5, 6) or (len(fields) == 1 and fields[0] != "@every")
    return [(60, 0)] if whole_minutes else []
