"""Schedule of a graph record: interval or cron expression, notifications, cadence; whether it is ever due."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from syncline.control.cron import next_times
from syncline.messages.base import Message
from syncline.quoting import shown

__all__ = ["DueKind", "DueProblem", "ScheduleSpec", "caution", "judge", "never_comes"]


def _cron_expression(text: str) -> str:
    if not re.fullmatch(r"@\S+( \S+)?|\S+( +\S+){4,6}", text):
        raise ValueError(
            f"{shown(text)} is not a cron expression; use five fields, like '30 4 * * *', or '@hourly'"
        )
    return text


class ScheduleSpec(BaseModel):
    """When a graph syncs: by interval, or by cron expression if one is set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_seconds: int = Field(default=60, ge=1, le=2_592_000)
    cron: Annotated[str, AfterValidator(_cron_expression)] | None = None
    """Cron expression of five to seven fields, or `@hourly` and the like. It overrides `every_seconds`."""
    notify: bool = True
    """Whether a change in its write-db triggers a run (NOTIFY), instead of waiting for the Schedule."""
    linger_seconds: Annotated[float, Field(ge=0, le=60)] | None = None
    """Seconds that a run stays open for further changes after the last one; null: as its worker is set."""
    adaptive: bool = False
    """Whether the Schedule slows down while nothing changes; only with `notify` and without `cron`."""
    cadence: tuple[Annotated[int, Field(ge=1, le=2_592_000)], ...] = (120, 300, 900)
    """The longer intervals of an adaptive graph, in seconds; those below `every_seconds` are ignored."""

    @model_validator(mode="after")
    def _slows_down_only_when_notified_of_changes(self) -> Self:
        if self.adaptive and not self.notify:
            raise ValueError("adaptive needs notify: otherwise a change would wait for the longest interval")
        if self.adaptive and self.cron is not None:
            raise ValueError("adaptive needs an interval; it cannot be combined with a cron expression")
        return self

    @property
    def intervals(self) -> tuple[int, ...]:
        """The intervals of its Schedule in seconds, the base first; only the base unless adaptive."""
        slower = sorted(step for step in set(self.cadence) if step > self.every_seconds)
        return (self.every_seconds, *(slower if self.adaptive else ()))

    @property
    def in_words(self) -> str:
        """A short description of when it syncs."""
        slower = f" to {self.intervals[-1]}" if len(self.intervals) > 1 else ""
        notified = "" if self.notify else ", not notified"
        return f"{self.cron or f'every {self.every_seconds}{slower} s'}{notified}"


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
