"""The search attributes that a run gives itself, as few events as possible."""

from collections.abc import Iterator

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate

from syncline import names
from syncline.messages.sync import CycleStatus, ProviderResolution, SyncResult
from syncline.temporal.client import (
    FAILURES,
    FALLBACK,
    GRAPH,
    PROVIDER,
    PROVIDER_API,
    PROVIDER_VERSION,
    ROWS,
    STATUS,
)

__all__ = ["of_the_cycle", "of_the_provider", "unset_of_the_cycle", "upsert"]

AttributeUpdate = SearchAttributeUpdate[str] | SearchAttributeUpdate[int] | SearchAttributeUpdate[bool]


def upsert(*updates: AttributeUpdate) -> None:
    """Set what differs from what the run has: each upsert is an event in its history.

    A run of a Schedule begins with what most runs would set (`syncline.schedules`), so that an idle one has
    no such event: it costs the server as much as an activity. An attribute that is added later may be set
    together with others only (`of_the_cycle`), or a run that an earlier release has begun would get an event
    that its history lacks.
    """
    present = workflow.info().typed_search_attributes
    changed = [update for update in updates if present.get(update.key) != update.value]
    if changed:
        workflow.upsert_search_attributes(changed)


def of_the_provider(resolution: ProviderResolution) -> Iterator[AttributeUpdate]:
    """Yield what a run is found by once its provider has been resolved."""
    yield GRAPH.value_set(resolution.graph.slug)
    yield PROVIDER.value_set(resolution.provider_id or names.FALLBACK_PROVIDER)
    yield FALLBACK.value_set(resolution.fallback is not None)


def of_the_cycle(resolution: ProviderResolution, result: SyncResult) -> Iterator[AttributeUpdate]:
    """Yield what a run is found by once its cycle has returned.

    That is what there is to look for: a status other than drained, and which version of a plugin ran it; the
    built-in engine is as old as its worker.
    """
    if result.status is not CycleStatus.DRAINED:
        yield STATUS.value_set(result.ended_as)
    if resolution.task_queue is not None and result.served is not None:
        yield PROVIDER_VERSION.value_set(result.served.version)
        yield PROVIDER_API.value_set(str(result.served.api_version))
    yield ROWS.value_set(result.rows)
    yield FAILURES.value_set(result.failures)


def unset_of_the_cycle() -> Iterator[AttributeUpdate]:
    """Yield what takes away all that an earlier run's cycle has told."""
    yield STATUS.value_unset()
    yield PROVIDER_VERSION.value_unset()
    yield PROVIDER_API.value_unset()
    yield ROWS.value_unset()
    yield FAILURES.value_unset()
