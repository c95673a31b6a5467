"""What operators ask for: the inputs of the workflows that work on the stores, and the results of some."""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, JsonValue, model_validator

from syncline import names
from syncline.control.graphs import Graph, GraphDraft
from syncline.errors import InputInvalid
from syncline.messages.base import GraphName, GraphStatus, Message, OperatorInput, TableName, Who, Why
from syncline.operator.dead_letters import DeadLetterState, Selection

__all__ = [
    "AddGraphInput",
    "ChangeGraphInput",
    "DiscardFailuresInput",
    "ExplainRowInput",
    "FailuresActed",
    "GraphChanged",
    "GraphPage",
    "ListAuditInput",
    "ListFailuresInput",
    "ListGraphAuditInput",
    "ListGraphsInput",
    "ListParkedInput",
    "OperationInput",
    "PromoteShadowInput",
    "Promotion",
    "RetryFailuresInput",
    "SummarizeFailuresInput",
    "SummarizeParkedInput",
    "VerificationProgress",
    "VerifyGraphInput",
]


class OperationInput(OperatorInput):
    """Base of these inputs."""

    summary_format: ClassVar[str]
    """What the run is for, with fields of the input in braces."""

    @property
    def changes(self) -> bool:
        """Whether it changes something, or else only looks."""
        return False

    @property
    def about(self) -> str | None:
        """The graph, as it was named: what the run is found by."""
        named: str | None = getattr(self, "graph", None)
        return named

    @property
    def summary(self) -> str:
        """What the run is for, in a line."""
        return self.summary_format.format_map(dict(self))


class VerifyGraphInput(OperationInput):
    """Input of `VerifyGraph`; with `repair`, `who` and `why` are kept in the audit."""

    workflow = names.VERIFY_GRAPH

    graph: GraphName
    tables: tuple[TableName, ...] = ()
    """Of the table map; empty: all."""
    keys: int = Field(default=10, ge=0, le=10_000)
    """How many keys of each finding are named."""
    vectors: bool = True
    repair: bool = False
    who: Who = ""
    why: Why = ""
    shadow: bool = False
    """Compare the live result with its shadow instead; nothing of that is repaired."""

    @model_validator(mode="after")
    def _a_difference_is_no_damage(self) -> Self:
        if self.shadow and self.repair:
            raise InputInvalid("What differs from the shadow is not repaired: it may differ on purpose.")
        return self

    @property
    def changes(self) -> bool:
        """Whether it has what differs made right."""
        return self.repair

    @property
    def summary(self) -> str:
        """What the run is for."""
        if self.shadow:
            return f"Compare graph {self.graph} with its shadow"
        repair = f" and repair it: {self.why}, by {self.who}" if self.repair else ""
        return f"Verify graph {self.graph}{repair}"


class _ActionInput(OperationInput):
    """Which refused rows, exactly one way: a row, a table, a fingerprint, or everything; who, and why."""

    graph: GraphName
    table: TableName | None = None
    key: tuple[str, ...] | None = None
    fingerprint: str | None = None
    everything: bool = False
    who: Who
    why: Why

    @property
    def changes(self) -> bool:
        """It changes what is tried again."""
        return True

    @model_validator(mode="after")
    def _selects(self) -> Self:
        _ = self.selection
        return self

    @property
    def selection(self) -> Selection:
        """The rows that it is for."""
        return Selection(
            table=self.table, key=self.key, fingerprint=self.fingerprint, everything=self.everything
        )


class RetryFailuresInput(_ActionInput):
    """Input of `RetryFailures`."""

    workflow = names.RETRY_FAILURES
    summary_format = "Retry refused rows of {graph}: {why}, by {who}"


class DiscardFailuresInput(_ActionInput):
    """Input of `DiscardFailures`."""

    workflow = names.DISCARD_FAILURES
    summary_format = "Discard refused rows of {graph}: {why}, by {who}"


class FailuresActed(Message):
    """Result of `RetryFailures` and `DiscardFailures`."""

    rows: int = 0
    """How many refused rows matched, and were retried or discarded."""


class SummarizeFailuresInput(OperationInput):
    """Input of `SummarizeFailures`."""

    workflow = names.SUMMARIZE_FAILURES
    summary_format = "Count refused rows of {graph} by cause"

    graph: GraphName
    table: TableName | None = None
    state: DeadLetterState | None = None
    limit: int = 100


class ListFailuresInput(OperationInput):
    """Input of `ListFailures`; with a key, and its table, the page is of that row alone."""

    workflow = names.LIST_FAILURES
    summary_format = "List refused rows of {graph}"

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
    summary_format = "List what was done to {graph} by hand"

    graph: GraphName
    limit: int = 100
    before: int | None = None


class ListGraphAuditInput(OperationInput):
    """Input of `ListGraphAudit`; without a graph it is about all of them."""

    workflow = names.LIST_GRAPH_AUDIT

    graph: str | None = None
    limit: int = 100
    before: int | None = None

    @property
    def summary(self) -> str:
        """What the run is for."""
        return f"List who changed {'graphs' if self.graph is None else f'graph {self.graph}'}"


class SummarizeParkedInput(OperationInput):
    """Input of `SummarizeParked`."""

    workflow = names.SUMMARIZE_PARKED
    summary_format = "Show what waits in {graph}, and for whom"

    graph: GraphName
    limit: int = 20


class ListParkedInput(OperationInput):
    """Input of `ListParked`."""

    workflow = names.LIST_PARKED
    summary_format = "List what waits of {table} of {graph}"

    graph: GraphName
    table: TableName
    limit: int = 100
    after: str | None = None


class ExplainRowInput(OperationInput):
    """Input of `ExplainRow`; the table by its name in the graph-db or in the write-db."""

    workflow = names.EXPLAIN_ROW
    summary_format = "Explain a row of {table} of {graph}"

    graph: GraphName
    table: TableName
    key: tuple[str, ...]


class ListGraphsInput(OperationInput):
    """Input of `ListGraphs`; with a graph, the page is of that one alone."""

    workflow = names.LIST_GRAPHS

    graph: GraphName | None = None
    limit: int = 1_000
    after: str | None = None

    @property
    def summary(self) -> str:
        """What the run is for."""
        return "List graphs" if self.graph is None else f"Show graph {self.graph}"


class GraphPage(Message):
    """Result of `ListGraphs`: graphs by slug."""

    graphs: tuple[Graph, ...] = ()
    next: str | None = None
    """What to give as `after` for the following page; None when this is the last one."""


class AddGraphInput(OperationInput):
    """Input of `AddGraph`: `{"draft": {"slug": "world"}}`. The result is the graph."""

    workflow = names.ADD_GRAPH
    summary_format = "Add graph {draft.slug}"

    draft: GraphDraft
    schedule: bool = True
    """Make its Schedule too, instead of leaving that to the next reconciliation."""
    who: str = ""
    """Kept in the audit, with who has started the run."""
    why: str = ""

    @property
    def changes(self) -> bool:
        """It makes a graph."""
        return True

    @property
    def about(self) -> str:
        """The graph that is to be."""
        return self.draft.slug


class ChangeGraphInput(OperationInput):
    """Input of `ChangeGraph`: what is left out stays."""

    workflow = names.CHANGE_GRAPH

    graph: GraphName
    name: str | None = None
    status: GraphStatus | None = None
    is_default: bool | None = None
    composition: Mapping[str, JsonValue] | None = None
    schedule: Mapping[str, JsonValue] = Field(default_factory=dict)
    """The fields of the record's schedule that change: `{"every_seconds": 300, "cron": null}`."""
    drop_shadow: bool = False
    """Then drop what the shadow's cycles have written; if it is still declared, they begin anew."""
    who: str = ""
    """Kept in the audit, with who has started the run."""
    why: str = ""

    @property
    def changes(self) -> bool:
        """It changes a graph."""
        return True

    @property
    def summary(self) -> str:
        """What the run is for."""
        changed = sorted(self.model_fields_set - {"graph", "who", "why"})
        return f"Change {', '.join(changed) or 'nothing'} of graph {self.graph}"


class GraphChanged(Message):
    """Result of `ChangeGraph`."""

    graph: Graph
    operators_pause: str | None = None
    """The note of an active graph's Schedule that an operator has paused; None: it is not paused."""


class PromoteShadowInput(OperationInput):
    """Input of `PromoteShadow`: what the graph's shadow has becomes the graph, and the other way round."""

    workflow = names.PROMOTE_SHADOW
    summary_format = "Promote the shadow of {graph}: {why}, by {who}"

    graph: GraphName
    force: bool = False
    """Even if the shadow is behind, or something is in the live schema alone."""
    who: Who
    why: Why

    @property
    def changes(self) -> bool:
        """It swaps the two."""
        return True


class Promotion(Message):
    """Result of `PromoteShadow`: the graph after it."""

    graph: str
    provider_id: str
    """Who serves the graph now."""
    shadow_provider_id: str
    """Who served it before, and serves its shadow now."""
    qdrant_prefix: str
    """Of the graph's collections now: whoever reads them has to follow it."""
    despite: tuple[str, ...] = ()
    """What spoke against it, when it was forced."""
    resumed: bool = False
    """Whether this finished a promotion that was cut off before."""


class VerificationProgress(Message):
    """Heartbeat details of activity `verify_graph`."""

    relation: str
    compared: int = 0
