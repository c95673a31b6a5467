"""Check of a Schedule's next times: never due again, due too often, or not within a year."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Final

from syncline.control.cron import next_times
from syncline.control.schedule_spec import ScheduleSpec
from syncline.messages.base import Message

__all__ = ["DueKind", "DueProblem", "caution", "judge", "never_comes"]

_RAPID: Final = timedelta(seconds=10)
_RARE: Final = timedelta(days=366)


class DueKind(StrEnum):
    """Kind of problem with the times of a Schedule."""

    NEVER = "never"
    """It is not paused, but has no future time."""
    RAPID = "rapid"
    """It is due more often than every ten seconds."""
    RARE = "rare"
    """It is next due in more than a year."""


class DueProblem(Message):
    """Problem with the times of one Schedule."""

    kind: DueKind
    problem: str
    """The problem in a sentence."""
    fix: str


def judge(times: Sequence[datetime]) -> tuple[DueKind, str] | None:
    """Return the problem of a Schedule with these next times, with a sentence; None if there is none."""
    if not times:
        return DueKind.NEVER, "The Schedule is never due again: it is not paused, but has no future time."
    often = _too_often(min((later - earlier for earlier, later in pairwise(times)), default=_RAPID))
    if often is not None:
        return often
    wait = times[0] - datetime.now(UTC)
    if wait > _RARE:
        return DueKind.RARE, f"The Schedule is next due in {wait.days:,} days, on {times[0]:%Y-%m-%d}."
    return None


def caution(slug: str, spec: ScheduleSpec) -> DueProblem | None:
    """Return the problem of a record's schedule; None if none is known."""
    if spec.cron is None:
        found = _too_often(timedelta(seconds=spec.every_seconds))
    else:
        times = next_times(spec.cron, after=datetime.now(UTC))
        found = None if times is None else judge(times)
    if found is None:
        return None
    kind, problem = found
    return DueProblem(
        kind=kind,
        problem=problem,
        fix=f"`syncline graph set {slug} --every-seconds 60`, or `--cron` with the intended times.",
    )


def never_comes(spec: ScheduleSpec) -> str | None:
    """Return why this schedule is never due, and the fix; None if it is due at some time."""
    if spec.cron is None or next_times(spec.cron, after=datetime.now(UTC)) != []:
        return None
    # It was parsed, so only its comment could contain a secret.
    understood = spec.cron.partition("#")[0].strip()
    return (
        f"'{understood}' is never due: no time until the end of 2100 matches all of its fields. Use "
        "another one, like '30 4 * * *', or an interval (every_seconds), or pause the graph"
    )


def _too_often(gap: timedelta) -> tuple[DueKind, str] | None:
    if gap >= _RAPID:
        return None
    problem = (
        f"The Schedule is due every {gap.total_seconds():g} s; each run costs workers and server time, "
        "even when nothing has changed."
    )
    return DueKind.RAPID, problem
