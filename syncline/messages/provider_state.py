"""Messages on provider availability: which provider served a graph, outages (fallback, held), signals.

Separate from `syncline.messages.sync` for its size only.
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
    "UsedMap",
]


class FallbackReason(StrEnum):
    """Why no provider was available."""

    NO_GRAPH_CONTEXT = "no_graph_context"
    NOT_DECLARED = "not_declared"
    NOT_INSTALLED = "not_installed"


class Fallback(Message):
    """The cycle runs the built-in engine in place of a provider, and why."""

    reason: FallbackReason
    detail: str
    """One sentence for a person."""
    provider_id: str | None = None
    """The provider that the composition names, when it names one."""


class Held(Message):
    """Nothing is synced: no worker has the provider of the composition, whose `on_missing` is `hold`."""

    provider_id: str
    detail: str
    """One sentence for a person."""


class OutageKind(StrEnum):
    """How a graph was treated while no provider served it."""

    FALLBACK = "fallback"
    HELD = "held"


class Outage(Message):
    """A sequence of runs in which no provider served the graph."""

    how: OutageKind
    since: datetime


class OutageEnded(Message):
    """When a provider served the graph again, and the outage that this ended."""

    at: datetime
    away: Outage


class UsedMap(Message):
    """The stored map that a graph is synced by."""

    name: str
    version: int
    hash: str
    """Hash of what its document says."""


class Served(Message):
    """The provider that ran a cycle, as it is installed in one worker."""

    version: str
    """Version of the provider."""
    api_version: int
    distribution: str
    """`name version` of the installed distribution."""
    worker: str
    """Identity of the worker, as `syncline providers` and Temporal show it."""
    map: UsedMap | None = None
    """The stored map of the cycle; null if the provider has its own, or the built-in one."""


class ProviderFallback(Message):
    """Payload of signal `provider_fallback`."""

    idempotency_key: str
    """Equal for every attempt of one resolution, so that signals of a retried activity count once."""
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
    """The outage that ended, and when it began."""
    at: datetime


class ProviderState(Message):
    """Result of query `provider_state`: the state carried from earlier runs until this one has resolved."""

    of_run: str | None = None
    """The run that resolved this; an earlier one if the queried run has not resolved, or could not."""
    as_of: datetime | None = None
    after_run: str | None = None
    """The previous run, whose counts it continues; null if it knew of none: the first, or a manual run."""
    provider_id: str | None = None
    provider_version: str | None = None
    """As resolved; once the cycle has returned, of the provider that ran it. So are the next two."""
    api_version: int | None = None
    distribution: str | None = None
    worker: str | None = None
    """Identity of the worker that ran the cycle, by a provider or by the built-in engine."""
    map: UsedMap | None = None
    """The stored map that the graph is synced by; null if the provider has its own, or the built-in one."""
    fallback: Fallback | None = None
    fallback_since: datetime | None = None
    consecutive_fallback_runs: int = 0
    held: Held | None = None
    held_since: datetime | None = None
    consecutive_held_runs: int = 0
    last_return: OutageEnded | None = None

    @property
    def begins_here(self) -> bool:
        """Whether the outage is counted from this run because it knew of no earlier run."""
        known = self.of_run is None or self.after_run is not None
        return not known and max(self.consecutive_fallback_runs, self.consecutive_held_runs) == 1

    def served_by(self, served: Served | None) -> Self:
        """Return a copy with the provider that ran the cycle: its version may differ from the resolved."""
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
                "map": served.map or self.map,
            }
        )
