"""What commands answer as JSON where no message of the library says it already."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from syncline.health import Check
from syncline.messages import CycleStatus, SyncResult

__all__ = [
    "Adopted",
    "AdoptionStep",
    "DatabaseGrants",
    "Diagnosis",
    "Loaded",
    "Migrated",
    "ScheduleListed",
    "ScheduleRun",
    "ScheduleSteered",
    "SchedulesSteered",
    "SteeredAction",
    "SyncedRun",
]


class Answer(BaseModel):
    """Base of an answer."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class ScheduleRun(Answer):
    """A run that a Schedule has started."""

    workflow_id: str
    run_id: str
    started_at: datetime


class ScheduleListed(Answer):
    """A graph's Schedule."""

    graph: str
    spec: str
    """When it runs, in words."""
    paused: bool
    note: str | None
    next_at: datetime | None
    last_runs: tuple[ScheduleRun, ...]
    """Newest first."""


class ScheduleSteered(Answer):
    """What was done to a graph's Schedule."""

    graph: str
    action: Literal["triggered", "paused", "resumed", "backfilling"]
    reason: str | None = None
    """Of a pause."""
    start: datetime | None = None
    """Of a backfill."""
    end: datetime | None = None


SteeredAction = Literal["paused", "resumed"]
"""What can be done to the Schedules of all graphs at once."""


class SchedulesSteered(Answer):
    """What was done to the Schedules of all graphs."""

    action: SteeredAction
    reason: str
    graphs: tuple[str, ...]
    """Those that it was done to; others were so already, or are paused for another reason."""
    failed: dict[str, str]
    """Those that could not be reached, and why."""


class SyncedRun(Answer):
    """A run of `SyncGraph` that was started, or found open, by hand."""

    graph: str
    workflow_id: str
    run_id: str
    joined: bool
    """Whether it was open already: a run by hand, or with --follow whichever held the graph."""
    status: str
    """`running` if nobody waited for its end, else how it ended: `completed`, `failed`, `canceled`, …"""
    cycle: CycleStatus | None = None
    """How its cycle ended."""
    provider: str | None = None
    """`builtin-engine` in fallback."""
    fallback: bool = False
    result: SyncResult | None = None
    error: str | None = None


class Migrated(Answer):
    """What migrating one thing took."""

    graph: str | None
    """Null for the control plane."""
    revisions: tuple[str, ...]
    """Those that were applied; none if it was up to date."""


class Loaded(Answer):
    """Sample data that was written."""

    graph: str
    rows: dict[str, int]
    """Table -> rows written."""
    seconds: float


class AdoptionStep(Answer):
    """A step of an adoption."""

    sentence: str
    sql: str


class Adopted(Answer):
    """What was done, or would be, to prepare a graph's tables for capture."""

    graph: str
    undo: bool
    dry_run: bool
    steps: tuple[AdoptionStep, ...]


class Diagnosis(Answer):
    """What `syncline doctor` found."""

    well: bool
    """Whether no check fails; warnings are no failures."""
    checks: tuple[Check, ...]


class DatabaseGrants(Answer):
    """What an administrator is to run in one database, so that roles have their rights there."""

    name: str
    """`write-db`, `graph-db` or `control plane`, with the key of a store that is not the system's."""
    setting: str
    """The setting of the workers that says where it is."""
    sql: str
