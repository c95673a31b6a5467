"""When a Schedule comes next, judged: never again, all too often, or only after a year."""

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
    """What is wrong with the times of a Schedule."""

    NEVER = "never"
    """It is not paused, and has no time left at which it would start a run."""
    RAPID = "rapid"
    """It comes more often than every ten seconds."""
    RARE = "rare"
    """It comes next in more than a year."""


class DueProblem(Message):
    """What is wrong with the times of one Schedule."""

    kind: DueKind
    problem: str
    """In a sentence."""
    fix: str


def judge(times: Sequence[datetime]) -> tuple[DueKind, str] | None:
    """Return what is wrong with a Schedule that comes at these times next, in a sentence; None if nothing."""
    if not times:
        return DueKind.NEVER, "The Schedule never comes again: it is not paused, and no time of it is left."
    often = _too_often(min((later - earlier for earlier, later in pairwise(times)), default=_RAPID))
    if often is not None:
        return often
    wait = times[0] - datetime.now(UTC)
    if wait > _RARE:
        return DueKind.RARE, f"The Schedule comes next in {wait.days:,} days, on {times[0]:%Y-%m-%d}."
    return None


def caution(slug: str, spec: ScheduleSpec) -> DueProblem | None:
    """Return what is wrong with when a record has its graph sync, None if nothing is known to be."""
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
        fix=f"`syncline graph set {slug} --every-seconds 60`, or `--cron` with one that comes as is meant.",
    )


def never_comes(spec: ScheduleSpec) -> str | None:
    """Return why nothing would ever be synced by this schedule, and what to write instead; None if it is."""
    if spec.cron is None or next_times(spec.cron, after=datetime.now(UTC)) != []:
        return None
    # It was understood, so that no secret is in it but in its comment.
    understood = spec.cron.partition("#")[0].strip()
    return (
        f"'{understood}' never comes: no time until the end of 2100 fits all of its fields. Write one "
        "that comes, like '30 4 * * *', or an interval (every_seconds), or pause the graph"
    )


def _too_often(gap: timedelta) -> tuple[DueKind, str] | None:
    if gap >= _RAPID:
        return None
    problem = (
        f"The Schedule comes every {gap.total_seconds():g} s, and each run costs workers and server its "
        "share, also when nothing has changed."
    )
    return DueKind.RAPID, problem
