"""The keys of the search attributes: ours, by `syncline.names`, and those of Temporal that we read."""

from typing import Final

from temporalio.common import SearchAttributeKey

from syncline import names

__all__ = [
    "FAILURES",
    "FALLBACK",
    "FINGERPRINT",
    "GRAPH",
    "PROVIDER",
    "PROVIDER_API",
    "PROVIDER_VERSION",
    "REPORTED_PROBLEMS",
    "ROWS",
    "SCHEDULED_BY",
    "SCHEDULED_FOR",
    "STATUS",
]

GRAPH: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_GRAPH)
PROVIDER: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER)
PROVIDER_VERSION: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER_VERSION)
PROVIDER_API: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_PROVIDER_API)
FALLBACK: Final = SearchAttributeKey.for_bool(names.ATTRIBUTE_FALLBACK)
STATUS: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_STATUS)
ROWS: Final = SearchAttributeKey.for_int(names.ATTRIBUTE_ROWS)
FAILURES: Final = SearchAttributeKey.for_int(names.ATTRIBUTE_FAILURES)
FINGERPRINT: Final = SearchAttributeKey.for_keyword(names.ATTRIBUTE_FINGERPRINT)

SCHEDULED_BY: Final = SearchAttributeKey.for_keyword("TemporalScheduledById")
"""Id of the Schedule that has started a run."""
SCHEDULED_FOR: Final = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
"""When that was due."""
REPORTED_PROBLEMS: Final = SearchAttributeKey.for_keyword_list("TemporalReportedProblems")
"""Category and cause, while the workflow task of a run has failed five times or more."""
