"""The wire names of Syncline: every name that Temporal, Postgres or an operator sees.

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
"""Workflow type: one run returns the registered workers and what each has installed."""
DESCRIBE_HEALTH: Final = "DescribeHealth"
"""Workflow type: one run returns the health checks of one worker."""
DESCRIBE_GRAPHS: Final = "DescribeGraphs"
"""Workflow type: one run returns the numbers that the state tables of graphs have."""

# Workflow types of operations that an operator starts: one run performs one operation.
VERIFY_GRAPH: Final = "VerifyGraph"
RETRY_FAILURES: Final = "RetryFailures"
DISCARD_FAILURES: Final = "DiscardFailures"
SUMMARIZE_FAILURES: Final = "SummarizeFailures"
LIST_FAILURES: Final = "ListFailures"
LIST_AUDIT: Final = "ListAudit"
LIST_GRAPH_AUDIT: Final = "ListGraphAudit"
LIST_USAGE: Final = "ListUsage"
SUMMARIZE_PARKED: Final = "SummarizeParked"
LIST_PARKED: Final = "ListParked"
EXPLAIN_ROW: Final = "ExplainRow"
LIST_GRAPHS: Final = "ListGraphs"
ADD_GRAPH: Final = "AddGraph"
CHANGE_GRAPH: Final = "ChangeGraph"
PROMOTE_SHADOW: Final = "PromoteShadow"
LIST_MAPS: Final = "ListMaps"
SHOW_MAP: Final = "ShowMap"
PUT_MAP: Final = "PutMap"
TAKE_OVER_GRAPH: Final = "TakeOverGraph"
DECIDE_COLUMNS: Final = "DecideColumns"
DROP_COLLECTIONS: Final = "DropCollections"
DELETE_GRAPH: Final = "DeleteGraph"
RENAME_GRAPH: Final = "RenameGraph"
PLAN_EMBEDDING: Final = "PlanEmbedding"
DESCRIBE_EMBEDDING: Final = "DescribeEmbedding"
CHANGE_EMBEDDING: Final = "ChangeEmbedding"
DESCRIBE_REBUILD: Final = "DescribeRebuild"
CHANGE_REBUILD: Final = "ChangeRebuild"
WAIT_VISIBLE: Final = "WaitVisible"
"""Workflow type: one run waits until what a transaction wrote is visible in a graph."""

WORKFLOWS: Final = frozenset(
    {
        SYNC_GRAPH,
        RECONCILE_SCHEDULES,
        DESCRIBE_FLEET,
        DESCRIBE_HEALTH,
        DESCRIBE_GRAPHS,
        VERIFY_GRAPH,
        RETRY_FAILURES,
        DISCARD_FAILURES,
        SUMMARIZE_FAILURES,
        LIST_FAILURES,
        LIST_AUDIT,
        LIST_GRAPH_AUDIT,
        LIST_USAGE,
        SUMMARIZE_PARKED,
        LIST_PARKED,
        EXPLAIN_ROW,
        LIST_GRAPHS,
        ADD_GRAPH,
        CHANGE_GRAPH,
        PROMOTE_SHADOW,
        LIST_MAPS,
        SHOW_MAP,
        PUT_MAP,
        TAKE_OVER_GRAPH,
        DECIDE_COLUMNS,
        DROP_COLLECTIONS,
        DELETE_GRAPH,
        RENAME_GRAPH,
        PLAN_EMBEDDING,
        DESCRIBE_EMBEDDING,
        CHANGE_EMBEDDING,
        DESCRIBE_REBUILD,
        CHANGE_REBUILD,
        WAIT_VISIBLE,
    }
)
"""Every workflow type that our workers serve."""

RESOLVE_PROVIDER: Final = "resolve_provider"
"""Activity: resolve the provider of the graph, or the reason why there is none."""
SYNC_CYCLE: Final = "sync_cycle"
"""Activity: one cycle of the provider, or of the built-in engine in fallback."""
LOAD_RANGES: Final = "load_ranges"
"""Activity: one lane of a running cycle's loads, which has no part in anything else."""
RECONCILE_SCHEDULES_ACTIVITY: Final = "reconcile_schedules"
"""Activity: compare all graphs with all Schedules, and create, update or delete what differs."""
DESCRIBE_FLEET_ACTIVITY: Final = "describe_fleet"
"""Activity: the workers registered in the control plane, and the graphs that use their providers."""
DESCRIBE_HEALTH_ACTIVITY: Final = "describe_health"
"""Activity: check stores, migrations, clocks and services from one worker."""
DESCRIBE_GRAPHS_ACTIVITY: Final = "describe_graphs"
"""Activity: count what waits and what was refused of each graph, by its state tables."""

# Activities: each is the only one of the workflow of the same name.
VERIFY_GRAPH_ACTIVITY: Final = "verify_graph"
RETRY_FAILURES_ACTIVITY: Final = "retry_failures"
DISCARD_FAILURES_ACTIVITY: Final = "discard_failures"
SUMMARIZE_FAILURES_ACTIVITY: Final = "summarize_failures"
LIST_FAILURES_ACTIVITY: Final = "list_failures"
LIST_AUDIT_ACTIVITY: Final = "list_audit"
LIST_GRAPH_AUDIT_ACTIVITY: Final = "list_graph_audit"
LIST_USAGE_ACTIVITY: Final = "list_usage"
SUMMARIZE_PARKED_ACTIVITY: Final = "summarize_parked"
LIST_PARKED_ACTIVITY: Final = "list_parked"
EXPLAIN_ROW_ACTIVITY: Final = "explain_row"
LIST_GRAPHS_ACTIVITY: Final = "list_graphs"
ADD_GRAPH_ACTIVITY: Final = "add_graph"
CHANGE_GRAPH_ACTIVITY: Final = "change_graph"
PROMOTE_SHADOW_ACTIVITY: Final = "promote_shadow"
LIST_MAPS_ACTIVITY: Final = "list_maps"
SHOW_MAP_ACTIVITY: Final = "show_map"
PUT_MAP_ACTIVITY: Final = "put_map"
TAKE_OVER_GRAPH_ACTIVITY: Final = "take_over_graph"
DECIDE_COLUMNS_ACTIVITY: Final = "decide_columns"
DROP_COLLECTIONS_ACTIVITY: Final = "drop_collections"
DELETE_GRAPH_ACTIVITY: Final = "delete_graph"
RENAME_GRAPH_ACTIVITY: Final = "rename_graph"
PLAN_EMBEDDING_ACTIVITY: Final = "plan_embedding"
DESCRIBE_EMBEDDING_ACTIVITY: Final = "describe_embedding"
CHANGE_EMBEDDING_ACTIVITY: Final = "change_embedding"
DESCRIBE_REBUILD_ACTIVITY: Final = "describe_rebuild"
CHANGE_REBUILD_ACTIVITY: Final = "change_rebuild"
WAIT_VISIBLE_ACTIVITY: Final = "wait_visible"

SET_CADENCE: Final = "set_cadence"
"""Activity: change the interval of a graph's Schedule, by its adaptive cadence."""

PROVIDER_FALLBACK: Final = "provider_fallback"
"""Signal: resolution fell back to the built-in engine (audit event); retried attempts count once."""
PROVIDER_HELD: Final = "provider_held"
"""Signal: no worker has the provider, so the graph is held and not synced in this run (audit event)."""
PROVIDER_RETURNED: Final = "provider_returned"
"""Signal, sent once: a provider serves a graph again whose last runs were in fallback or held (audit event).

Not sent if that cycle failed. If Temporal rejects the signal, the worker logs a WARNING, and
`carried.last_return` contains the return anyway.
"""
CYCLE_PROGRESS: Final = "cycle_progress"
"""Signal: progress of a long cycle, sent every 60 s, or every `progress_seconds` if that is longer."""

LANES_CALLED: Final = "lanes_called"
"""Signal: the running cycle has loads that further lanes may take part in."""

SYNC_STATE: Final = "sync_state"
"""Query: phase, provider, fallback, progress, last result, carried totals."""
PROVIDER_STATE: Final = "provider_state"
"""Query: which provider serves the graph, its version and worker, or since when there is none."""

MEMO_TIMES: Final = "times"
"""Memo of a Schedule's runs: `[[every, offset], …]` in seconds, the regular times of the Schedule."""

ATTRIBUTE_GRAPH: Final = "SynclineGraph"
"""Slug of the graph; `<slug>/shadow` for a run of its shadow; the slug or id as typed for an operation.
Set on Schedules too."""
ATTRIBUTE_PROVIDER: Final = "SynclineProvider"
"""Id of the provider; `builtin-engine` in fallback."""
ATTRIBUTE_PROVIDER_VERSION: Final = "SynclineProviderVersion"
"""Version of the plugin's provider that ran the cycle. The built-in engine has the version of its worker."""
ATTRIBUTE_PROVIDER_API: Final = "SynclineProviderApi"
"""Version of the provider contract that the provider implements: `1`."""
ATTRIBUTE_FALLBACK: Final = "SynclineFallback"
"""Whether the built-in engine replaced a provider that is not available."""
ATTRIBUTE_STATUS: Final = "SynclineStatus"
"""How the cycle ended (`CycleStatus`, or `blocked`); not set for `drained`."""
ATTRIBUTE_ROWS: Final = "SynclineRows"
"""Rows that the run inserted, changed or deleted in the graph-db."""
ATTRIBUTE_FAILURES: Final = "SynclineFailures"
"""Rejected rows plus failed tables."""
ATTRIBUTE_FINGERPRINT: Final = "SynclineFingerprint"
"""On Schedules only: a hash of the graph record from which the Schedule was made, to detect a changed
record."""

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
"""NOTIFY channel of the graph-db that announces a changed graph (payload: `SyncEvent` as JSON)."""

VISIBLE_CHANNEL: Final = "syncline_visible"
"""NOTIFY channel of the graph-db that announces that more is visible (payload: the graph's schema)."""

WRITE_CHANNEL: Final = "syncline_write"
"""NOTIFY channel of a write-db that announces changes (payload: transaction id and schema)."""

FALLBACK_PROVIDER: Final = "builtin-engine"
"""Value of the provider attribute when the built-in engine ran because no provider was available."""

DEFAULT_PROVIDER: Final = "default"
"""Provider id of the built-in engine, for use in a composition."""


SECOND: Final = "@second"
"""Ends the name under which a graph-db lists a collection of a graph's second embedding model."""


def second_collection(collection: str) -> str:
    """Return the name of a collection's second generation in the graph-db; no map's collection has an `@`."""
    return f"{collection}{SECOND}"


def physical_collection(prefix: str, collection: str, generation: int = 1) -> str:
    """Return the name that a generation of a collection has in the vector store."""
    return f"{prefix}{collection}" if generation == 1 else f"{prefix}{collection}.{generation}"


def live_alias(prefix: str, collection: str) -> str:
    """Return the name that readers query: an alias of the generation that they are to see.

    A shadow's prefix has that of its graph, so that a promotion, which swaps the two, changes no name.
    """
    return f"{prefix.removesuffix('shadow_')}{collection}.live"


def sync_workflow_id(slug: str) -> str:
    """Return the workflow id of a graph's sync; a Schedule appends the start time to it."""
    return f"sync-graph/{slug}"


def shadow_slug(slug: str) -> str:
    """Return the name of a graph's shadow in runs, metrics and logs; a graph's slug never contains `/`."""
    return f"{slug}/shadow"


def shadowed_slug(name: str) -> str | None:
    """Return the slug of the graph whose shadow has this name; None if it is not a shadow's name."""
    slug = name.removesuffix("/shadow")
    return None if slug == name else slug


def shadow_workflow_id(slug: str) -> str:
    """Return the workflow id of the shadow's run that follows a graph's run: one is open at a time."""
    return f"shadow/{slug}"


def shadow_schema(schema: str) -> str:
    """Return the graph-db schema of the shadow of the graph in `schema`."""
    return f"{schema}_shadow"


def shadow_prefix(prefix: str) -> str:
    """Return the collection prefix of the shadow; for a shadow's prefix, that of the live graph.

    A promotion swaps the two.
    """
    before = prefix.removesuffix("shadow_")
    return f"{prefix}shadow_" if before == prefix else before


def sync_schedule_id(slug: str) -> str:
    """Return the id of a graph's Schedule."""
    return f"sync-graph/{slug}"


def reconcile_schedules_id(task_queue: str) -> str:
    """Return the id of both the Schedule and the workflow that reconcile the Schedules on a task queue."""
    return f"{task_queue}/reconcile-schedules"


def operation_id(workflow: str, graph: str | None, token: str) -> str:
    """Return the workflow id of an operation, such as `verify-graph/world/1f0c9a2e`."""
    return "/".join(filter(None, (re.sub("(?<=[a-z])(?=[A-Z])", "-", workflow).lower(), graph, token)))


def operations_task_queue(task_queue: str) -> str:
    """Return the task queue of operations' activities: they never wait for a slot behind cycles."""
    return f"{task_queue}/operations"


def schedules_task_queue(task_queue: str) -> str:
    """Return the task queue of activities that change Schedules: they too never wait behind cycles."""
    return f"{task_queue}/schedules"


def waits_task_queue(task_queue: str) -> str:
    """Return the task queue of activities that wait for what is visible: many at once, which do nothing."""
    return f"{task_queue}/waits"


def loads_task_queue(task_queue: str) -> str:
    """Return the task queue of lanes of loads: they take no slot from a cycle, and older workers do not
    poll it.
    """
    return f"{task_queue}/loads"


def provider_task_queue(task_queue: str, provider_id: str) -> str:
    """Return the task queue of a routed provider's cycles: only workers that have the provider poll it."""
    return f"{task_queue}/providers/{provider_id}"
