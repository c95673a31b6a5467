"""Base classes and shared types of the messages that cross Temporal."""

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
    "Fairness",
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
    """Base of every message: frozen; ignores fields that a newer release added."""

    # Every field is always written, so the published JSON schemas mark all of them as required.
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)

    def kept_json(self) -> bytes:
        """Return the JSON that is sent to Temporal and kept in histories."""
        return self.model_dump_json().encode()


class SparseMessage(Message):
    """A message between workflow and activities, encoded without fields that have their default value.

    The decoder fills them in, in any release: defaults are wire format and never change.
    """

    def kept_json(self) -> bytes:
        """Return only the fields that differ from their defaults; an idle run has few."""
        return self.model_dump_json(exclude_defaults=True).encode()


class Fairness(SparseMessage):
    """The tenant that waiting work is counted to, by Temporal's fairness keys."""

    key: str
    weight: float | None = None
    """Its share of the workers while several tenants wait; null: 1."""


class GraphRef(Message):
    """Which graph a message is about."""

    id: UUID
    slug: str


class GraphStatus(StrEnum):
    """Whether a graph is synced."""

    ACTIVE = "active"
    PAUSED = "paused"
    """Its Schedule is paused; a run that an operator starts still syncs it."""
    ARCHIVED = "archived"
    """Not synced at all."""


class LockHolder(Message):
    """The session that holds a graph's lock on the graph-db. Any role that may connect can take the lock."""

    pid: int | None = None
    role: str | None = None
    application_name: str | None = None
    since: datetime | None = None
    """When the session began; null if the worker's role may not see it: grant pg_read_all_stats."""
    run_id: str | None = None
    """Run id from its application name, if the session has the worker's own role."""
    attempt: int | None = None
    held_since: datetime | None = None
    """When that attempt acquired the lock, to the minute."""
    idle_since: datetime | None = None
    """Since when the session has been idle: its worker is busy elsewhere, frozen or unreachable."""


_MOST_NAMED: Final = 5


def _can_be_a_name(name: str) -> str:
    # It becomes a search attribute: Temporal terminates a run whose search attribute is too long.
    if not name or shown(name) != f"'{name}'":
        raise ValueError("not a valid name")
    return name


GraphName = Annotated[str, AfterValidator(_can_be_a_name)]
"""Slug or id of a graph."""
TableName = Annotated[str, AfterValidator(_can_be_a_name)]
Who = Annotated[str, Field(max_length=500)]
Why = Annotated[str, Field(max_length=5_000)]


class OperatorInput(BaseModel):
    """Base of workflow inputs that operators type.

    Unknown keys are rejected, because a mistyped key would otherwise be silently ignored. Invalid input
    raises InputInvalid, which names the keys as they were typed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    workflow: ClassVar[str]
    """The workflow type that takes this input."""

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
                f"The input of {cls.workflow} is invalid: {problems}. "
                f"Known keys: {', '.join(cls.model_fields)}{example}."
            ) from None


def _key(part: int | str) -> str:
    """Return a key in quotes; masked if it may be a value typed in the place of a key."""
    key = path_shown(str(part))
    return f"'{key}'" if key == str(part) else key
