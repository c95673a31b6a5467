"""When a graph syncs, as its record says."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from syncline.quoting import shown

__all__ = ["ScheduleSpec"]


def _cron_expression(text: str) -> str:
    if not re.fullmatch(r"@\S+( \S+)?|\S+( +\S+){4,6}", text):
        raise ValueError(
            f"{shown(text)} is no cron expression; write five fields, like '30 4 * * *', or '@hourly'"
        )
    return text


class ScheduleSpec(BaseModel):
    """When a graph syncs: by interval, or by cron expression when there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_seconds: int = Field(default=60, ge=1, le=2_592_000)
    cron: Annotated[str, AfterValidator(_cron_expression)] | None = None
    """Five to seven fields, or `@hourly` and the like. It comes before `every_seconds`."""
    notify: bool = True
    """Whether its write-db tells the worker of changes, so that they need not wait for the Schedule."""
    adaptive: bool = False
    """Whether the Schedule slows down while nothing changes; only with `notify`, and not with `cron`."""
    cadence: tuple[Annotated[int, Field(ge=1, le=2_592_000)], ...] = (120, 300, 900)
    """The rarer intervals of an adaptive graph, in seconds; those below `every_seconds` do not count."""

    @model_validator(mode="after")
    def _slows_down_only_when_notified_of_changes(self) -> Self:
        if self.adaptive and not self.notify:
            raise ValueError("adaptive needs notify: else a change would wait for the slowest run")
        if self.adaptive and self.cron is not None:
            raise ValueError("adaptive is for an interval; a cron expression says itself when to run")
        return self

    @property
    def intervals(self) -> tuple[int, ...]:
        """The intervals of its Schedule in seconds, the base first; one unless it is adaptive."""
        slower = sorted(step for step in set(self.cadence) if step > self.every_seconds)
        return (self.every_seconds, *(slower if self.adaptive else ()))

    @property
    def in_words(self) -> str:
        """When it syncs, in a few words."""
        slower = f" to {self.intervals[-1]}" if len(self.intervals) > 1 else ""
        notified = "" if self.notify else ", not notified"
        return f"{self.cron or f'every {self.every_seconds}{slower} s'}{notified}"
