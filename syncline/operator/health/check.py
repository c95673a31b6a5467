"""Messages of health checks: name, status, finding and fix of each check."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from syncline.errors import PoolerUnsupported, SynclineError
from syncline.logs import get_log
from syncline.messages.base import Message

__all__ = ["SKEW", "Check", "CheckStatus", "Health", "HealthRequest", "bounded", "listed", "skew_check"]

SKEW: Final = 2.0
"""Seconds that two clocks may differ without a warning."""


class CheckStatus(StrEnum):
    """Result of a check."""

    OK = "ok"
    WARN = "warn"
    """It works, but may soon fail, or works worse than it could."""
    FAIL = "fail"
    SKIP = "skip"
    """Not checked; another check gives the reason."""


class Check(Message):
    """Result of one check. It contains no secrets: stores are identified by host and database."""

    name: str
    status: CheckStatus = CheckStatus.OK
    found: str
    fix: str | None = None
    """What to run or change; null if the check is ok."""


class HealthRequest(Message):
    """Input of activity `describe_health`: when the run started, by Temporal's clock."""

    asked_at: datetime


class Health(Message):
    """Result of workflow `DescribeHealth`."""

    worker: str
    """Identity of the worker that ran the checks."""
    checks: tuple[Check, ...]


async def bounded(
    name: str, seconds: float, look: Callable[[], Awaitable[Sequence[Check]]], *, fix: str
) -> Sequence[Check]:
    """Return the checks of `look`, or one failed check if it raises or takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await look()
    except TimeoutError:
        found = f"no answer within {seconds:g} s"
    except PoolerUnsupported as error:
        found, fix = str(error), error.fix
    except SynclineError as error:
        found = str(error)
    except Exception as error:  # one check must not prevent the others
        # Its message is from foreign code, and may contain a URL with a password.
        get_log().exception("check failed", check=name)
        found = f"{type(error).__name__}; see the worker's log"
    return [Check(name=name, status=CheckStatus.FAIL, found=found, fix=fix)]


def listed(named: Sequence[str], *, most: int = 20, between: str = ", ") -> str:
    """Return at most `most` names or sentences in one line, and the number of further ones."""
    more = f" and {len(named) - most:,} more" if len(named) > most else ""
    return between.join(named[:most]) + more


def skew_check(name: str, low: timedelta, high: timedelta, *, whose: str) -> Check:
    """Return the check of a clock that is ahead of ours by between `low` and `high`."""
    least = max(low.total_seconds(), -high.total_seconds())
    found = f"between {low.total_seconds():+.3f} and {high.total_seconds():+.3f} s ahead"
    if least <= SKEW:
        return Check(name=name, found=found)
    return Check(
        name=name, status=CheckStatus.WARN, found=found, fix=f"Synchronize {whose} by NTP (chronyd)."
    )
