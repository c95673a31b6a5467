"""A check, and the report of many: what was looked at, what was found, what to run if that is not well."""

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
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, and will not for long, or not as well as it could."""
    FAIL = "fail"
    SKIP = "skip"
    """It could not be looked at; another check says why."""


class Check(Message):
    """What one check found. Nothing in it is a secret: stores are told by host and database."""

    name: str
    status: CheckStatus = CheckStatus.OK
    found: str
    fix: str | None = None
    """What to run or change, unless all is well."""


class HealthRequest(Message):
    """Input of workflow `DescribeHealth`'s activity: when it was asked for, by Temporal's clock."""

    asked_at: datetime


class Health(Message):
    """Result of workflow `DescribeHealth`."""

    worker: str
    """Identity of the worker that looked."""
    checks: tuple[Check, ...]


async def bounded(
    name: str, seconds: float, look: Callable[[], Awaitable[Sequence[Check]]], *, fix: str
) -> Sequence[Check]:
    """Return what `look` finds, or one failed check if it raises or takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await look()
    except TimeoutError:
        found = f"no answer within {seconds:g} s"
    except PoolerUnsupported as error:
        found, fix = str(error), error.fix
    except SynclineError as error:
        found = str(error)
    except Exception as error:  # a check must not keep the others from being told
        # Its text is a stranger's, and may have an address with a password in it.
        get_log().exception("check failed", check=name)
        found = f"{type(error).__name__}; the worker's log has more"
    return [Check(name=name, status=CheckStatus.FAIL, found=found, fix=fix)]


def listed(named: Sequence[str], *, most: int = 20) -> str:
    """Return names in a line, and how many more there are."""
    more = f" and {len(named) - most:,} more" if len(named) > most else ""
    return ", ".join(named[:most]) + more


def skew_check(name: str, low: timedelta, high: timedelta, *, whose: str) -> Check:
    """Return the check of a clock that is ahead of ours by something between these bounds."""
    least = max(low.total_seconds(), -high.total_seconds())
    found = f"between {low.total_seconds():+.3f} and {high.total_seconds():+.3f} s ahead"
    if least <= SKEW:
        return Check(name=name, found=found)
    return Check(
        name=name, status=CheckStatus.WARN, found=found, fix=f"Synchronize {whose} by NTP (chronyd)."
    )
