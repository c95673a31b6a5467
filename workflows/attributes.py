"""The search attributes that a run gives itself, as few events as possible."""

from collections.abc import Iterator
from typing import Final

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributeUpdate

from syncline import names
from syncline.messages import ProviderResolution, SyncResult

__all__ = ["GRAPH", "of_the_cycle", "of_the_provider", "unset_of_the_cycle", "upsert"]

AttributeUpdate = SearchAttributeUpdate[str] | SearchAttributeUpdate[int] | SearchAttributeUpdate[bool]

GRAPH: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_GRAPH)
_PROVIDER: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER)
_PROVIDER_VERSION: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER_VERSION)
_PROVIDER_API: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER_API)
_FALLBACK: Final = SearchAttributeKey.for_bool(names.ATTRIBUTE_FALLBACK)
_STATUS: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_STATUS)
_ROWS: Final = SearchAttributeKey.for_int(names.ATTRIBUTE_ROWS)
_FAILURES: Final = SearchAttributeKey.for_int(names.ATTRIBUTE_FAILURES)


def upsert(*updates: AttributeUpdate) -> None:
    """Set what differs from what the run has: each upsert is an event in its history.

    An attribute that is added later belongs into an upsert that is made in any case (`of_the_cycle`), or a
    run that an earlier release has begun would get an event that its history lacks. `of_the_provider` is not
    one: a run of a cron may have all of it from the run before.
    """
    present = workflow.info().typed_search_attributes
    changed = [update for update in updates if present.get(update.key) != update.value]
    if changed:
        workflow.upsert_search_attributes(changed)


def of_the_provider(resolution: ProviderResolution) -> Iterator[AttributeUpdate]:
    """Yield what a run is found by once its provider has been resolved."""
    yield GRAPH.value_set(resolution.graph.slug)
    yield _PROVIDER.value_set(resolution.provider_id or names.FALLBACK_PROVIDER)
    yield _FALLBACK.value_set(resolution.fallback is not None)


def of_the_cycle(result: SyncResult) -> Iterator[AttributeUpdate]:
    """Yield what a run is found by once its cycle has returned: how it ended, and who really ran it."""
    yield _STATUS.value_set(result.status.value)
    if result.served is not None:
        yield _PROVIDER_VERSION.value_set(result.served.version)
        yield _PROVIDER_API.value_set(str(result.served.api_version))
    yield _ROWS.value_set(result.rows)
    yield _FAILURES.value_set(result.failures)


def unset_of_the_cycle() -> Iterator[AttributeUpdate]:
    """Yield what takes away all that an earlier run's cycle has told."""
    yield _STATUS.value_unset()
    yield _PROVIDER_VERSION.value_unset()
    yield _PROVIDER_API.value_unset()
    yield _ROWS.value_unset()
    yield _FAILURES.value_unset()
