"""What every message that crosses Temporal is made of."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from syncline.errors import InputInvalid
from syncline.quoting import path_shown, shown

__all__ = [
    "GraphName",
    "GraphRef",
    "GraphStatus",
    "LockHolder",
    "Message",
    "OperatorInput",
    "SparseMessage",
    "TableName",
    "Who",
    "Why",
]


class Message(BaseModel):
    """Base of every message: immutable, and tolerant of fields that a newer release added."""

    # Everything is always said, so the schemas of what commands answer say that it is there.
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)

    def kept_json(self) -> bytes:
        """Return the JSON that Temporal gets, and keeps in histories."""
        return self.model_dump_json().encode()


class SparseMessage(Message):
    """A message between workflow and activities, kept in every history: without what has its default.

    Whoever reads it fills that in, in any release: so a default is wire format too, and never changes.
    """

    def kept_json(self) -> bytes:
        """Return only what differs from the defaults, which is little of an idle run."""
        return self.model_dump_json(exclude_defaults=True).encode()


class GraphRef(Message):
    """Which graph a message is about."""

    id: UUID
    slug: str


class GraphStatus(StrEnum):
    """Whether a graph is synced."""

    ACTIVE = "active"
    PAUSED = "paused"
    """Not by schedule; a run started by hand still syncs it."""
    ARCHIVED = "archived"
    """Not at all."""


class LockHolder(Message):
    """The session that holds a graph's lock on the graph-db. Anybody who may connect there can take it."""

    pid: int | None = None
    role: str | None = None
    application_name: str | None = None
    since: datetime | None = None
    """When its session began; null when the worker's role may not see it: grant it pg_read_all_stats."""
    run_id: str | None = None
    """The run whose cycle it is by its name, if it is of the worker's own role."""
    attempt: int | None = None
    held_since: datetime | None = None
    """When that attempt took the graph, to the minute."""
    idle_since: datetime | None = None
    """Since when its session asks for nothing: the worker is busy elsewhere, or frozen, or away."""


_MOST_NAMED: Final = 5


def _can_be_a_name(name: str) -> str:
    # A run is found by it: Temporal ends one whose search attribute is too long.
    if not name or shown(name) != f"'{name}'":
        raise ValueError("it cannot be the name of anything here")
    return name


GraphName = Annotated[str, AfterValidator(_can_be_a_name)]
"""Slug or id of a graph."""
TableName = Annotated[str, AfterValidator(_can_be_a_name)]
Who = Annotated[str, Field(max_length=500)]
Why = Annotated[str, Field(max_length=5_000)]


class OperatorInput(BaseModel):
    """Base of what operators type as the input of a workflow.

    Unknown keys are refused, because a mistyped key would otherwise be silently ignored. What is refused
    raises InputInvalid, which says so in the words of someone who typed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    workflow: ClassVar[str]
    """The workflow type that it is the input of."""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_plainly(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
            problems = "; ".join(
                " ".join(
                    [*(f"{_key(part)}:" for part in item["loc"]), item["msg"].removeprefix("Value error, ")]
                )
                for item in found[:_MOST_NAMED]
            )
            if len(found) > _MOST_NAMED:
                problems += f"; and {len(found) - _MOST_NAMED:,} more"
            example = "" if "graph" not in cls.model_fields else '; for example {"graph": "world"}'
            raise InputInvalid(
                f"The input of {cls.workflow} is not usable: {problems}. "
                f"Known keys: {', '.join(cls.model_fields)}{example}."
            ) from None


def _key(part: int | str) -> str:
    """Return a key in quotes; whoever mistook a value for one is not quoted."""
    key = path_shown(str(part))
    return f"'{key}'" if key == str(part) else key
