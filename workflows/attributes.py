"""Search attributes that a run upserts, in as few history events as possible."""

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
    """Upsert the attributes whose values differ from the run's: each upsert is an event in its history.

    A Schedule starts its runs with the attributes that most runs would set (`syncline.temporal.schedules`):
    an idle run has no such event, which costs the server as much as an activity. An attribute added by a
    later release may only be set together with others (`of_the_cycle`): otherwise a run that an earlier
    release has started would get an event that its history lacks.
    """
    present = workflow.info().typed_search_attributes
    changed = [update for update in updates if present.get(update.key) != update.value]
    if changed:
        workflow.upsert_search_attributes(changed)


def of_the_provider(resolution: ProviderResolution) -> Iterator[AttributeUpdate]:
    """Yield the attributes to set once the provider has been resolved."""
    yield GRAPH.value_set(resolution.graph.slug)
    yield PROVIDER.value_set(resolution.provider_id or names.FALLBACK_PROVIDER)
    yield FALLBACK.value_set(resolution.fallback is not None)


def of_the_cycle(resolution: ProviderResolution, result: SyncResult) -> Iterator[AttributeUpdate]:
    """Yield the attributes to set once the cycle has returned.

    Only what operators search for: a status other than drained, and the version of a plugin's provider (the
    built-in engine has the version of its worker).
    """
    if result.status is not CycleStatus.DRAINED:
        yield STATUS.value_set(result.ended_as)
    if resolution.task_queue is not None and result.served is not None:
        yield PROVIDER_VERSION.value_set(result.served.version)
        yield PROVIDER_API.value_set(str(result.served.api_version))
    yield ROWS.value_set(result.rows)
    yield FAILURES.value_set(result.failures)


def unset_of_the_cycle() -> Iterator[AttributeUpdate]:
    """Yield updates that unset all cycle attributes inherited from an earlier run."""
    yield STATUS.value_unset()
    yield PROVIDER_VERSION.value_unset()
    yield PROVIDER_API.value_unset()
    yield ROWS.value_unset()
    yield FAILURES.value_unset()
