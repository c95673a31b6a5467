"""Durations as they are typed: 90s, 15m, 2h, 7d."""

import re
from typing import Final

from syncline.cli.tables import one_line
from syncline.errors import ConfigurationError

__all__ = ["duration", "seconds_of"]

_TYPED: Final = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(typed: str) -> int | None:
    """Return the seconds of a duration; None if it is none."""
    found = _TYPED.fullmatch(typed)
    return None if found is None else int(found["number"]) * _SECONDS[found["unit"]]


def duration(typed: str, *, option: str) -> int:
    """Return the seconds of an option's duration, or raise ConfigurationError."""
    seconds = seconds_of(typed)
    if seconds is None:
        raise ConfigurationError(f"{option} '{one_line(typed)}' is no duration; write it like 12h or 7d.")
    return seconds
