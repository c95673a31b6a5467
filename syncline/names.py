"""The wire names of Syncline: every name that Temporal, Postgres or an operator sees, in one place.

These are a wire format. Renaming one breaks running workflows, saved Web UI views and operators' scripts.
"""

import re
from typing import Final

TASK_QUEUE: Final = "syncline"
ENTRY_POINT_GROUP: Final = "syncline.providers"

SYNC_GRAPH: Final = "SyncGraph"
"""Workflow type: one run syncs one graph once."""
RECONCILE_SCHEDULES: Final = "ReconcileSchedules"
"""Workflow type: one run makes the Schedules match the graphs."""
DESCRIBE_FLEET: Final = "DescribeFleet"
"""Workflow type: one run says which workers there are and what they have installed."""
DESCRIBE_HEALTH: Final = "DescribeHealth"
"""Workflow type: one run says whether all that a worker needs is well."""

# Workflow types of what an operator asks for: one run does it once.
VERIFY_GRAPH: Final = "VerifyGraph"
RETRY_FAILURES: Final = "RetryFailures"
DISCARD_FAILURES: Final = "DiscardFailures"
SUMMARIZE_FAILURES: Final = "SummarizeFailures"
LIST_FAILURES: Final = "ListFailures"
LIST_AUDIT: Final = "ListAudit"
LIST_GRAPH_AUDIT: Final = "ListGraphAudit"
SUMMARIZE_PARKED: Final = "SummarizeParked"
LIST_PARKED: Final = "ListParked"
EXPLAIN_ROW: Final = "ExplainRow"
LIST_GRAPHS: Final = "ListGraphs"
ADD_GRAPH: Final = "AddGraph"
CHANGE_GRAPH: Final = "ChangeGraph"
PROMOTE_SHADOW: Final = "PromoteShadow"

WORKFLOWS: Final = frozenset(
    {
        SYNC_GRAPH,
        RECONCILE_SCHEDULES,
        DESCRIBE_FLEET,
        DESCRIBE_HEALTH,
        VERIFY_GRAPH,
        RETRY_FAILURES,
        DISCARD_FAILURES,
        SUMMARIZE_FAILURES,
        LIST_FAILURES,
        LIST_AUDIT,
        LIST_GRAPH_AUDIT,
        SUMMARIZE_PARKED,
        LIST_PARKED,
        EXPLAIN_ROW,
        LIST_GRAPHS,
        ADD_GRAPH,
        CHANGE_GRAPH,
        PROMOTE_SHADOW,
    }
)
"""Every workflow type that our workers serve."""

RESOLVE_PROVIDER: Final = "resolve_provider"
"""Activity: which provider answers for the graph, or why none does."""
SYNC_CYCLE: Final = "sync_cycle"
"""Activity: one cycle of the provider, or of the built-in engine in fallback."""
RECONCILE_SCHEDULES_ACTIVITY: Final = "reconcile_schedules"
"""Activity: compare all graphs with all Schedules, and change what differs."""
DESCRIBE_FLEET_ACTIVITY: Final = "describe_fleet"
"""Activity: the workers that the control plane knows, and the graphs that use what they have."""
DESCRIBE_HEALTH_ACTIVITY: Final = "describe_health"
"""Activity: stores, migrations, clocks and services, looked at from one worker."""

# Activities: the only one of the workflow of that name.
VERIFY_GRAPH_ACTIVITY: Final = "verify_graph"
RETRY_FAILURES_ACTIVITY: Final = "retry_failures"
DISCARD_FAILURES_ACTIVITY: Final = "discard_failures"
SUMMARIZE_FAILURES_ACTIVITY: Final = "summarize_failures"
LIST_FAILURES_ACTIVITY: Final = "list_failures"
LIST_AUDIT_ACTIVITY: Final = "list_audit"
LIST_GRAPH_AUDIT_ACTIVITY: Final = "list_graph_audit"
SUMMARIZE_PARKED_ACTIVITY: Final = "summarize_parked"
LIST_PARKED_ACTIVITY: Final = "list_parked"
EXPLAIN_ROW_ACTIVITY: Final = "explain_row"
LIST_GRAPHS_ACTIVITY: Final = "list_graphs"
ADD_GRAPH_ACTIVITY: Final = "add_graph"
CHANGE_GRAPH_ACTIVITY: Final = "change_graph"
PROMOTE_SHADOW_ACTIVITY: Final = "promote_shadow"

SET_CADENCE: Final = "set_cadence"
"""Activity: give a graph's Schedule another interval, as an adaptive cadence has it."""

PROVIDER_FALLBACK: Final = "provider_fallback"
"""Signal: resolution fell back to the built-in engine (the audit event); repeated attempts count once."""
PROVIDER_HELD: Final = "provider_held"
"""Signal: no worker has the provider, so the graph is held and not synced in this run (the audit event)."""
PROVIDER_RETURNED: Final = "provider_returned"
"""Signal: a provider has served a graph whose last runs were in fallback or held, once (the audit event).

Not sent if that cycle failed. If Temporal does not take the signal, the worker logs a WARNING, and
`carried.last_return` has the return all the same.
"""
CYCLE_PROGRESS: Final = "cycle_progress"
"""Signal: progress of a long cycle, sent once a minute, or as rarely as `progress_seconds`."""

SYNC_STATE: Final = "sync_state"
"""Query: phase, provider, fallback, progress, last result, carried totals."""
PROVIDER_STATE: Final = "provider_state"
"""Query: which provider serves the graph, in which version and worker, or since when none does."""

MEMO_TIMES: Final = "times"
"""Memo of a Schedule's runs: `[[every, offset], …]` in seconds, the times of the runs that are not woken."""

ATTRIBUTE_GRAPH: Final = "SynclineGraph"
"""Slug of the graph; of a shadow's run `<slug>/shadow`; of an operation the graph as it was named.
Schedules have it too."""
ATTRIBUTE_PROVIDER: Final = "SynclineProvider"
"""Id of the provider; `builtin-engine` in fallback."""
ATTRIBUTE_PROVIDER_VERSION: Final = "SynclineProviderVersion"
"""Version of a plugin's provider that ran the cycle. The built-in engine has the version of its worker."""
ATTRIBUTE_PROVIDER_API: Final = "SynclineProviderApi"
"""Version of the provider contract that this provider was written for: `1`."""
ATTRIBUTE_FALLBACK: Final = "SynclineFallback"
"""Whether the built-in engine replaced a provider that is not available."""
ATTRIBUTE_STATUS: Final = "SynclineStatus"
"""How the cycle ended (`CycleStatus`, or `blocked`), unless it is `drained`."""
ATTRIBUTE_ROWS: Final = "SynclineRows"
"""Rows that the run inserted, changed or deleted in the graph-db."""
ATTRIBUTE_FAILURES: Final = "SynclineFailures"
"""Rows that were refused, and tables that failed."""
ATTRIBUTE_FINGERPRINT: Final = "SynclineFingerprint"
"""Of Schedules only: a hash of the record from which the Schedule was made, so that a changed record is
noticed."""

SEARCH_ATTRIBUTES: Final = {
    ATTRIBUTE_GRAPH: "Keyword",
    ATTRIBUTE_PROVIDER: "Keyword",
    ATTRIBUTE_PROVIDER_VERSION: "Keyword",
    ATTRIBUTE_PROVIDER_API: "Keyword",
    ATTRIBUTE_FALLBACK: "Bool",
    ATTRIBUTE_STATUS: "Keyword",
    ATTRIBUTE_ROWS: "Int",
    ATTRIBUTE_FAILURES: "Int",
    ATTRIBUTE_FINGERPRINT: "Keyword",
}
"""Search attribute name -> Temporal type, as `temporal operator search-attribute create` takes them."""

NOTIFY_CHANNEL: Final = "syncline"
"""Postgres channel of the graph-db on which a changed graph is announced (payload: `SyncEvent` as JSON)."""

WRITE_CHANNEL: Final = "syncline_write"
"""Postgres channel of a write-db on which changes are announced (payload: transaction id and schema)."""

FALLBACK_PROVIDER: Final = "builtin-engine"
"""What the provider attribute shows when the built-in engine ran because no provider answered."""

DEFAULT_PROVIDER: Final = "default"
"""Id of the built-in engine as a provider that a composition may name."""


def sync_workflow_id(slug: str) -> str:
    """Return the workflow id of a graph's sync; a Schedule appends the start time to it."""
    return f"sync-graph/{slug}"


def shadow_slug(slug: str) -> str:
    """Return what the shadow of a graph is called in runs, metrics and logs; no slug of a graph has a `/`."""
    return f"{slug}/shadow"


def shadowed_slug(name: str) -> str | None:
    """Return the graph whose shadow is called so; None if it is not a shadow's name."""
    slug = name.removesuffix("/shadow")
    return None if slug == name else slug


def shadow_workflow_id(slug: str) -> str:
    """Return the id of the run that follows a graph's run in its shadow: one is open at a time."""
    return f"shadow/{slug}"


def shadow_schema(schema: str) -> str:
    """Return the schema of the graph-db in which the shadow of the graph in `schema` is."""
    return f"{schema}_shadow"


def shadow_prefix(prefix: str) -> str:
    """Return the prefix of the shadow's collections. A promotion changes them: the other way round too."""
    before = prefix.removesuffix("shadow_")
    return f"{prefix}shadow_" if before == prefix else before


def sync_schedule_id(slug: str) -> str:
    """Return the id of a graph's Schedule."""
    return f"sync-graph/{slug}"


def reconcile_schedules_id(task_queue: str) -> str:
    """Return the id of the Schedule, and of the workflow, that reconciles the Schedules on a task queue."""
    return f"{task_queue}/reconcile-schedules"


def operation_id(workflow: str, graph: str | None, token: str) -> str:
    """Return the id of a run that an operator asks for, such as `verify-graph/world/1f0c9a2e`."""
    return "/".join(filter(None, (re.sub("(?<=[a-z])(?=[A-Z])", "-", workflow).lower(), graph, token)))


def operations_task_queue(task_queue: str) -> str:
    """Return the task queue of the activities of those runs: they never wait for a slot behind cycles."""
    return f"{task_queue}/operations"


def schedules_task_queue(task_queue: str) -> str:
    """Return the task queue of the activities that change Schedules: they too never wait behind cycles."""
    return f"{task_queue}/schedules"


def provider_task_queue(task_queue: str, provider_id: str) -> str:
    """Return the task queue of a routed provider's cycles: only workers that have the provider poll it."""
    return f"{task_queue}/providers/{provider_id}"
