"""Whether a provider is there for a graph: who served it, that nobody did, and what runs are told of that.

They are messages, apart from the others because those grew too many.
"""

from datetime import datetime
from enum import StrEnum
from typing import Self

from syncline.messages.base import GraphRef, Message

__all__ = [
    "Fallback",
    "FallbackReason",
    "Held",
    "Outage",
    "OutageEnded",
    "OutageKind",
    "ProviderFallback",
    "ProviderHeld",
    "ProviderReturned",
    "ProviderState",
    "Served",
]


class FallbackReason(StrEnum):
    """Why no provider answered."""

    NO_GRAPH_CONTEXT = "no_graph_context"
    NOT_DECLARED = "not_declared"
    NOT_INSTALLED = "not_installed"


class Fallback(Message):
    """The cycle runs the built-in engine, and why."""

    reason: FallbackReason
    detail: str
    """One sentence for a person."""
    provider_id: str | None = None
    """The provider that the composition names, when it names one."""


class Held(Message):
    """Nothing is synced: nobody has the provider that the composition names, and the graph is to wait."""

    provider_id: str
    detail: str
    """One sentence for a person."""


class OutageKind(StrEnum):
    """What became of a graph while nobody served it with a provider."""

    FALLBACK = "fallback"
    HELD = "held"


class Outage(Message):
    """A stretch of runs in which no provider served the graph."""

    how: OutageKind
    since: datetime


class OutageEnded(Message):
    """When a provider served the graph again, and from what it returned."""

    at: datetime
    away: Outage


class Served(Message):
    """Who ran a cycle: the provider as it is installed in one worker."""

    version: str
    """The provider's own."""
    api_version: int
    distribution: str
    """`name version` of the installed distribution."""
    worker: str
    """Its identity, as `syncline providers` and Temporal show it."""


class ProviderFallback(Message):
    """Payload of signal `provider_fallback`."""

    idempotency_key: str
    """Equal for every attempt of one resolution, so that a retried activity signals once in effect."""
    graph: GraphRef
    fallback: Fallback
    at: datetime


class ProviderHeld(Message):
    """Payload of signal `provider_held`."""

    idempotency_key: str
    graph: GraphRef
    held: Held
    at: datetime


class ProviderReturned(Message):
    """Payload of signal `provider_returned`."""

    idempotency_key: str
    graph: GraphRef
    provider_id: str
    served: Served | None = None
    away: Outage
    """What it returned from, and since when that had been so."""
    at: datetime


class ProviderState(Message):
    """Answer to query `provider_state`: what was carried to the run until it has resolved, then its own."""

    of_run: str | None = None
    """The run that resolved this; another one than was asked if that has not resolved, or could not."""
    as_of: datetime | None = None
    after_run: str | None = None
    """The run that its counts go on from; null if it knew of none: the first one, or one by hand."""
    provider_id: str | None = None
    provider_version: str | None = None
    """As it was resolved; once the cycle has returned, of the one that ran it. So are the next two."""
    api_version: int | None = None
    distribution: str | None = None
    worker: str | None = None
    """Identity of the worker that ran the cycle, by a provider or not."""
    fallback: Fallback | None = None
    fallback_since: datetime | None = None
    consecutive_fallback_runs: int = 0
    held: Held | None = None
    held_since: datetime | None = None
    consecutive_held_runs: int = 0
    last_return: OutageEnded | None = None

    @property
    def begins_here(self) -> bool:
        """Whether the stretch is counted from this run on because the run knew of none before it."""
        known = self.of_run is None or self.after_run is not None
        return not known and max(self.consecutive_fallback_runs, self.consecutive_held_runs) == 1

    def served_by(self, served: Served | None) -> Self:
        """Return the same with who ran the cycle, which need not be the version that was resolved."""
        if served is None:
            return self
        if self.provider_id is None:
            return self.model_copy(update={"worker": served.worker})
        return self.model_copy(
            update={
                "provider_version": served.version,
                "api_version": served.api_version,
                "distribution": served.distribution,
                "worker": served.worker,
            }
        )
