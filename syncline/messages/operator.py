"""Operator messages: inputs of the workflows that inspect or change graphs, and some of their results.

One module because they are read and changed together, as wire format.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, JsonValue, model_validator

from syncline import names
from syncline.control.graphs import Graph, GraphDraft
from syncline.control.maps import LONGEST_DOCUMENT, MapName, StoredMap
from syncline.errors import InputInvalid
from syncline.messages.base import GraphName, GraphStatus, Message, OperatorInput, TableName, Who, Why
from syncline.operator.dead_letters import DeadLetterState, Selection
from syncline.quoting import counted

__all__ = [
    "AddGraphInput",
    "ChangeGraphInput",
    "CollectionToDrop",
    "CollectionsDropped",
    "ColumnsDecided",
    "DecideColumnsInput",
    "DeleteGraphInput",
    "DeletedPart",
    "DiscardFailuresInput",
    "DropCollectionsInput",
    "ExplainRowInput",
    "FailuresActed",
    "GraphChanged",
    "GraphDeleted",
    "GraphPage",
    "ListAuditInput",
    "ListFailuresInput",
    "ListGraphAuditInput",
    "ListGraphsInput",
    "ListMapsInput",
    "ListParkedInput",
    "ListUsageInput",
    "MapPage",
    "OperationInput",
    "PromoteShadowInput",
    "Promotion",
    "PutMapInput",
    "RenameGraphInput",
    "RetryFailuresInput",
    "ShowMapInput",
    "SummarizeFailuresInput",
    "SummarizeParkedInput",
    "TakeOverGraphInput",
    "VerificationProgress",
    "VerifyGraphInput",
]


class OperationInput(OperatorInput):
    """Base of the inputs of operations."""

    summary_format: ClassVar[str]
    """Template of the run's summary, with fields of the input in braces."""

    @property
    def changes(self) -> bool:
        """Whether the operation changes anything; otherwise it only reads."""
        return False

    @property
    def about(self) -> str | None:
        """The slug or id of the graph as typed: the run's search attribute."""
        named: str | None = getattr(self, "graph", None)
        return named

    @property
    def summary(self) -> str:
        """One line on the purpose of the run, shown in the Web UI."""
        return self.summary_format.format_map(dict(self))


class VerifyGraphInput(OperationInput):
    """Input of `VerifyGraph`; with `repair`, `who` and `why` are recorded in the audit."""

    workflow = names.VERIFY_GRAPH

    graph: GraphName
    tables: tuple[TableName, ...] = ()
    """Tables of the table map to compare; empty: all."""
    keys: int = Field(default=10, ge=0, le=10_000)
    """Maximum number of keys listed per finding."""
    vectors: bool = True
    repair: bool = False
    who: Who = ""
    why: Why = ""
    shadow: bool = False
    """Compare the live graph with its shadow instead; such differences are never repaired."""

    @model_validator(mode="after")
    def _a_difference_is_no_damage(self) -> Self:
        if self.shadow and self.repair:
            raise InputInvalid("`repair` and `shadow` exclude each other: a shadow may differ on purpose.")
        return self

    @property
    def changes(self) -> bool:
        """Whether differences are repaired."""
        return self.repair

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        if self.shadow:
            return f"Compare graph {self.graph} with its shadow"
        repair = f" and repair it: {self.why}, by {self.who}" if self.repair else ""
        return f"Verify graph {self.graph}{repair}"


class TakeOverGraphInput(OperationInput):
    """Input of `TakeOverGraph`; unless `dry_run`, `who` and `why` are recorded in the audit."""

    workflow = names.TAKE_OVER_GRAPH

    graph: GraphName
    dry_run: bool = True
    delete_extra: bool = False
    """Have the next cycle delete rows and points that the write-db does not have."""
    keep_vectors: bool = False
    """Take the vectors that are there for those of the texts that stand in the target."""
    keys: int = Field(default=10, ge=0, le=10_000)
    """Maximum number of keys listed per finding."""
    vectors: bool = True
    who: Who = ""
    why: Why = ""

    @property
    def changes(self) -> bool:
        """Whether the first sync is prepared, not only said."""
        return not self.dry_run

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        if self.dry_run:
            return f"Compare graph {self.graph} with what a first sync would write"
        extra = ", extras deleted" if self.delete_extra else ""
        return f"Take over graph {self.graph}{extra}: {self.why}, by {self.who}"


class _ChangeInput(OperationInput):
    """Base of the inputs of operations that always change something."""

    @property
    def changes(self) -> bool:
        """Always true."""
        return True


class _ActionInput(_ChangeInput):
    """Selects rejected rows in exactly one way: a row, a table, a fingerprint, or everything."""

    graph: GraphName
    table: TableName | None = None
    key: tuple[str, ...] | None = None
    fingerprint: str | None = None
    everything: bool = False
    who: Who
    why: Why

    outcome_format: ClassVar[str]

    def outcome(self, done: "FailuresActed") -> str:
        """Return what was done, in one line."""
        return self.outcome_format.format(counted(done.rows, "row"))

    @model_validator(mode="after")
    def _selects(self) -> Self:
        _ = self.selection
        return self

    @property
    def selection(self) -> Selection:
        """The selected rows."""
        return Selection(
            table=self.table, key=self.key, fingerprint=self.fingerprint, everything=self.everything
        )


class RetryFailuresInput(_ActionInput):
    """Input of `RetryFailures`."""

    workflow = names.RETRY_FAILURES
    summary_format = "Retry rejected rows of {graph}: {why}, by {who}"
    outcome_format = "{} to be retried in the next cycle"


class DiscardFailuresInput(_ActionInput):
    """Input of `DiscardFailures`."""

    workflow = names.DISCARD_FAILURES
    summary_format = "Discard rejected rows of {graph}: {why}, by {who}"
    outcome_format = "{} discarded"


class FailuresActed(Message):
    """Result of `RetryFailures` and `DiscardFailures`."""

    rows: int = 0
    """How many rejected rows matched, and are to be retried or were discarded."""


class SummarizeFailuresInput(OperationInput):
    """Input of `SummarizeFailures`."""

    workflow = names.SUMMARIZE_FAILURES
    summary_format = "Count rejected rows of {graph} by cause"

    graph: GraphName
    table: TableName | None = None
    state: DeadLetterState | None = None
    limit: int = 100


class ListFailuresInput(OperationInput):
    """Input of `ListFailures`; with `key` and `table`, the page contains only that row."""

    workflow = names.LIST_FAILURES
    summary_format = "List rejected rows of {graph}"

    graph: GraphName
    table: TableName | None = None
    key: tuple[str, ...] | None = None
    fingerprint: str | None = None
    state: DeadLetterState | None = None
    limit: int = 100
    after: str | None = None


class ListAuditInput(OperationInput):
    """Input of `ListAudit`."""

    workflow = names.LIST_AUDIT
    summary_format = "List operators' actions on {graph}"

    graph: GraphName
    limit: int = 100
    before: int | None = None


class ListGraphAuditInput(OperationInput):
    """Input of `ListGraphAudit`; without a graph, all graphs."""

    workflow = names.LIST_GRAPH_AUDIT

    graph: str | None = None
    limit: int = 100
    before: int | None = None

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        return f"List changes of {'graphs' if self.graph is None else f'graph {self.graph}'}"


class ListUsageInput(OperationInput):
    """Input of `ListUsage`; without a graph, all graphs; without a month, all months."""

    workflow = names.LIST_USAGE

    graph: GraphName | None = None
    month: str | None = None
    """`YYYY-MM`, in UTC."""
    limit: int = 100

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        return f"List what embeddings of {'graphs' if self.graph is None else f'graph {self.graph}'} used"


class SummarizeParkedInput(OperationInput):
    """Input of `SummarizeParked`."""

    workflow = names.SUMMARIZE_PARKED
    summary_format = "Count parked rows of {graph} and the parents they wait for"

    graph: GraphName
    limit: int = 20


class ListParkedInput(OperationInput):
    """Input of `ListParked`."""

    workflow = names.LIST_PARKED
    summary_format = "List parked rows of {table} of {graph}"

    graph: GraphName
    table: TableName
    limit: int = 100
    after: str | None = None


class ExplainRowInput(OperationInput):
    """Input of `ExplainRow`; `table` is its name in the graph-db or in the write-db."""

    workflow = names.EXPLAIN_ROW
    summary_format = "Explain a row of {table} of {graph}"

    graph: GraphName
    table: TableName
    key: tuple[str, ...]


class ListGraphsInput(OperationInput):
    """Input of `ListGraphs`; with `graph`, the page contains only that graph."""

    workflow = names.LIST_GRAPHS

    graph: GraphName | None = None
    limit: int = 1_000
    after: str | None = None

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        return "List graphs" if self.graph is None else f"Show graph {self.graph}"


class GraphPage(Message):
    """Result of `ListGraphs`: graphs ordered by slug."""

    graphs: tuple[Graph, ...] = ()
    next: str | None = None
    """Value of `after` for the following page; null on the last page."""


class AddGraphInput(_ChangeInput):
    """Input of `AddGraph`: `{"draft": {"slug": "world"}}`. The result is the graph."""

    workflow = names.ADD_GRAPH
    summary_format = "Add graph {draft.slug}"

    draft: GraphDraft
    schedule: bool = True
    """Create its Schedule now, instead of at the next reconciliation."""
    who: str = ""
    """Kept in the audit, with who has started the run."""
    why: str = ""

    @property
    def about(self) -> str:
        """The slug of the new graph."""
        return self.draft.slug


class ChangeGraphInput(_ChangeInput):
    """Input of `ChangeGraph`: fields that are left out stay as they are."""

    workflow = names.CHANGE_GRAPH

    graph: GraphName
    name: str | None = None
    status: GraphStatus | None = None
    is_default: bool | None = None
    composition: Mapping[str, JsonValue] | None = None
    schedule: Mapping[str, JsonValue] = Field(default_factory=dict)
    """The fields of the record's schedule that change: `{"every_seconds": 300, "cron": null}`."""
    vectors: Mapping[str, JsonValue] = Field(default_factory=dict)
    """The rules of the record's vectors that change: `{"tokens_per_day": 1000000}`."""
    max_lag_seconds: int | None = Field(default=None, ge=0, le=2_592_000)
    """How far its graph-db may be behind; 0: nothing is promised any more."""
    fairness_key: str | None = Field(default=None, max_length=64)
    """The tenant that its waiting work is counted to; empty: the graph itself."""
    fairness_weight: float | None = Field(default=None, ge=0, le=1000)
    """The share of that tenant among those that wait; 0: 1, as without one."""
    embedding: str | None = Field(default=None, min_length=1, max_length=600)
    """Name of the embedding service that its vectors are to be made with; those of another are made again."""
    drop_shadow: bool = False
    """Afterwards drop all that the shadow's cycles have written; a shadow still declared starts again."""
    who: str = ""
    """Kept in the audit, with who has started the run."""
    why: str = ""

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        changed = sorted(self.model_fields_set - {"graph", "who", "why"})
        return f"Change {', '.join(changed) or 'nothing'} of graph {self.graph}"


class GraphChanged(Message):
    """Result of `ChangeGraph`."""

    graph: Graph
    operators_pause: str | None = None
    """Note of the active graph's Schedule if an operator has paused it; null: not paused."""
    other_embedding: str | None = None
    """The worker's own embedding, if another one was accepted; it writes no vectors of the graph."""


class PromoteShadowInput(_ChangeInput):
    """Input of `PromoteShadow`: swaps the live graph and its shadow."""

    workflow = names.PROMOTE_SHADOW
    summary_format = "Promote the shadow of {graph}: {why}, by {who}"

    graph: GraphName
    force: bool = False
    """Promote even if the shadow is behind, or the live schema contains objects that the shadow lacks."""
    who: Who
    why: Why


class Promotion(Message):
    """Result of `PromoteShadow`: the graph after the promotion."""

    graph: str
    provider_id: str
    """Provider that serves the graph now."""
    shadow_provider_id: str
    """Provider that served it before, and serves its shadow now."""
    qdrant_prefix: str
    """Prefix of the graph's collections now: readers of the collections have to follow it."""
    despite: tuple[str, ...] = ()
    """Reasons against the promotion that `force` overrode."""
    resumed: bool = False
    """Whether this run finished a promotion that was interrupted before."""
    paused_seconds: float = 0.0
    """For how long readers may have waited for its locks."""

    @property
    def outcome(self) -> str:
        """What serves the graph now, in one line."""
        return (
            f"{self.graph} is served by {self.provider_id}, its shadow by {self.shadow_provider_id}; its "
            f"collections begin with {self.qdrant_prefix}"
        )


class ListMapsInput(OperationInput):
    """Input of `ListMaps`: the newest version of each map, or with `name` its versions, newest first."""

    workflow = names.LIST_MAPS

    name: MapName | None = None
    limit: int = 1_000
    after: str | None = None
    """Of the maps: the name that the page before ended with."""
    before: int | None = None
    """Of versions: the one that the page before ended with."""

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        return "List maps" if self.name is None else f"List versions of map {self.name}"


class MapPage(Message):
    """Result of `ListMaps`."""

    maps: tuple[StoredMap, ...] = ()
    next: str | None = None
    """Value of `after` for the following page of maps; null on the last page."""
    before: int | None = None
    """Value of `before` for the following page of versions; null on the last page."""


class ShowMapInput(OperationInput):
    """Input of `ShowMap`; without a version, the newest."""

    workflow = names.SHOW_MAP
    summary_format = "Show map {name}"

    name: MapName
    version: int | None = None


class PutMapInput(OperationInput):
    """Input of `PutMap`: the document, whose name is the map's unless `name` is given."""

    workflow = names.PUT_MAP

    document: str = Field(max_length=LONGEST_DOCUMENT)
    name: MapName | None = None
    source: str = ""
    """Where the document is from, for errors: a file."""
    who: Who = ""
    """Kept with the version, with who has started the run."""
    why: Why = ""

    @property
    def changes(self) -> bool:
        """Always true: it may store a version."""
        return True

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        return f"Store map {self.name}" if self.name else "Store a map"


class DecideColumnsInput(OperationInput):
    """Input of `DecideColumns`: columns that were added to sources of a graph, to be taken or left alone."""

    workflow = names.DECIDE_COLUMNS
    summary_format = "Decide about new columns of {graph}"

    graph: GraphName
    columns: tuple[str, ...] = ()
    """Each as `table.column`; none: all that can be taken as they are."""
    ignore: bool = False
    """Leave them alone for good, in place of taking them."""
    who: Who = ""
    """Kept with the version of the map, with who has started the run."""
    why: Why = ""

    @property
    def changes(self) -> bool:
        """Always true: it may store a version."""
        return True


class ColumnsDecided(Message):
    """Result of `DecideColumns`."""

    map: str
    version: int | None = None
    """The version that says so; null if nothing was to be decided."""
    columns: tuple[str, ...] = ()
    """What was taken, or left alone, each as `table.column`."""
    graphs: tuple[str, ...] = ()
    """The graphs that this map syncs: their next cycles apply the version."""


class DropCollectionsInput(OperationInput):
    """Input of `DropCollections`. Without `drop`, nothing is dropped: the result says what would be."""

    workflow = names.DROP_COLLECTIONS
    summary_format = "Drop collections of {graph}"

    graph: GraphName
    collections: tuple[str, ...] = ()
    """Names as in the map, without the graph's prefix; all when empty."""
    drop: bool = False
    who: Who = ""
    """Kept in the audit, with who has started the run."""
    why: Why = ""

    @property
    def changes(self) -> bool:
        """Whether anything is dropped."""
        return self.drop


class CollectionToDrop(Message):
    """One collection of a graph."""

    name: str
    """With the graph's prefix."""
    points: int
    """0 too where there is no such collection."""


class CollectionsDropped(Message):
    """Result of `DropCollections`."""

    store: str
    collections: tuple[CollectionToDrop, ...] = ()
    dropped: bool = False
    made_again: bool = False
    """Whether the graph's cycles make them again, and embed all texts anew."""


class DeleteGraphInput(OperationInput):
    """Input of `DeleteGraph`. Without `delete`, nothing is deleted: the result says what would be."""

    workflow = names.DELETE_GRAPH

    graph: GraphName
    delete: bool = False
    keep_data: bool = False
    """Leave the tables that readers query, and the collections."""
    archive: bool = False
    """Archive a graph that is not archived yet, in place of refusing it."""
    who: Who = ""
    """Kept in the audit, with who has started the run."""
    why: Why = ""

    @property
    def changes(self) -> bool:
        """Whether anything is deleted."""
        return self.delete

    @property
    def summary(self) -> str:
        """One line on the purpose of the run."""
        if not self.delete:
            return f"List what belongs to graph {self.graph}"
        kept = ", keeping its data" if self.keep_data else ""
        return f"Delete graph {self.graph}{kept}: {self.why}, by {self.who}"


class RenameGraphInput(_ChangeInput):
    """Input of `RenameGraph`. The result is the graph."""

    workflow = names.RENAME_GRAPH
    summary_format = "Rename graph {graph} to {to}: {why}, by {who}"

    graph: GraphName
    to: GraphName
    """The new slug."""
    who: Who = ""
    """Kept in the audit, with who has started the run."""
    why: Why = ""


class DeletedPart(Message):
    """One thing that belongs to a graph."""

    kind: str
    """`Schedule`, `capture`, `sources`, `state`, `table`, `shadow`, `collection`, `record`, …"""
    name: str
    place: str = ""
    """The store that it is in; empty for Temporal."""
    detail: str = ""
    stays: bool = False
    """Whether the deletion leaves it."""


class GraphDeleted(Message):
    """Result of `DeleteGraph`: what goes and what stays."""

    graph: str
    parts: tuple[DeletedPart, ...] = ()
    blockers: tuple[str, ...] = ()
    """Why it cannot be deleted now: what of others depends on its tables, open runs."""
    deleted: bool = False


class VerificationProgress(Message):
    """Heartbeat details of activity `verify_graph`."""

    relation: str
    compared: int = 0
