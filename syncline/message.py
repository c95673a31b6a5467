"""What every message that crosses Temporal is made of."""

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

__all__ = ["GraphRef", "GraphStatus", "Message", "SparseMessage"]


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
