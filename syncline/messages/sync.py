"""The models that cross Temporal: frozen, keyword-only, one in and one out.

A new field always has a default, so that histories recorded by an older release still decode. Nothing here
carries rows or secrets. One module because they are read and changed together, as wire format.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import to_json

from syncline import names
from syncline.errors import InputInvalid
from syncline.messages.base import (
    GraphName,
    GraphRef,
    LockHolder,
    Message,
    OperatorInput,
    SparseMessage,
)
from syncline.messages.provider_state import (
    Fallback,
    Held,
    Outage,
    OutageEnded,
    OutageKind,
    ProviderFallback,
    ProviderHeld,
    ProviderReturned,
    ProviderState,
    Served,
)

LONGEST_RUN: Final = timedelta(hours=3)
"""Execution timeout of `SyncGraph`, whoever starts it: one that no worker can go on with ends some day."""


BLOCKED: Final = "blocked"
"""What is said in place of `already_running` once nobody is left who would give the graph back by himself."""


class SyncGraphInput(OperatorInput):
    """Input of workflow `SyncGraph`, as operators type it: `{"graph": "world"}`."""

    workflow = names.SYNC_GRAPH

    graph: GraphName | None = None
    """Slug or id; null means no graph context: the default graph, through the built-in engine."""
    batch_rows: int | None = Field(default=None, ge=1, le=1_000_000)
    """Rows of one committed batch; null means the worker's setting."""
    time_budget_seconds: float | None = Field(default=None, gt=0, le=3600)
    """When to stop draining; null means the worker's setting."""
    progress_seconds: float | None = Field(default=None, ge=1, le=3600)
    """Time between two heartbeats with news of progress, for somebody who watches; null means 5 s.

    The run itself is signalled once a minute, or as rarely as this.
    """
    shadow: bool = False
    """Run a cycle of the graph's shadow instead, beside the live result, which is left alone."""

    @model_validator(mode="after")
    def _a_shadow_is_of_a_graph(self) -> Self:
        if self.shadow and self.graph is None:
            raise InputInvalid("A shadow is that of a graph: name it.")
        return self

    @property
    def about(self) -> str | None:
        """What the run is found by."""
        return self.graph if self.graph is None or not self.shadow else names.shadow_slug(self.graph)


class ResolveProviderRequest(SparseMessage):
    """Input of activity `resolve_provider`."""

    graph: str | None = None
    unanswered: str | None = None
    """The provider that this run was resolved to before, and whose cycle no worker took."""
    shadow: bool = False
    """Resolve the provider of the graph's shadow."""


class CadenceRules(Message):
    """How rarely an adaptive graph may run, as long as its record says so."""

    intervals: tuple[int, ...]
    """In seconds, ascending; the first is the base, and alone when nothing would announce a change."""
    fingerprint: str
    """Of the Schedule that the record asks for: another record begins at the base again."""
    unheard: str | None = None
    """Why a change would not be announced, in a sentence; None if it would."""


class Cadence(Message):
    """How often the Schedule of an adaptive graph runs now, and why."""

    every_seconds: int
    base_seconds: int
    reason: str
    """One sentence for a person."""
    since: datetime
    fingerprint: str
    idle_since: datetime | None = None
    """The first run since which nothing changed; null after one that did something."""


class SetCadenceRequest(Message):
    """Input of activity `set_cadence`."""

    graph: str
    """Its slug."""
    every_seconds: int
    fingerprint: str
    """A Schedule with another one was made from another record, and is left alone."""


class ProviderResolution(SparseMessage):
    """Result of activity `resolve_provider`: names and reasons, never options or secrets."""

    graph: GraphRef
    provider_id: str | None = None
    provider_version: str | None = None
    distribution: str | None = None
    """The installed distribution that contributes the provider, as `name version`."""
    api_version: int | None = None
    task_queue: str | None = None
    """Of a routed provider: the queue that the workers which have it poll. None is that of the run."""
    answer_seconds: float | None = None
    """How long the cycle waits there for a worker before the provider is resolved again."""
    fallback: Fallback | None = None
    held: Held | None = None
    """Then `provider_id` is the one that the graph waits for."""
    cadence: CadenceRules | None = None
    """None for a graph whose Schedule keeps its interval."""
    shadowed: bool = False
    """Whether a run of the graph's shadow follows this one."""
    fingerprint: str | None = None
    """Of the graph's record that named the provider; None without a provider, and from an older worker."""


class SyncCycleRequest(SparseMessage):
    """Input of activity `sync_cycle`."""

    graph: GraphRef
    provider_id: str | None = None
    """None runs the built-in engine directly."""
    batch_rows: int | None = None
    time_budget_seconds: float | None = None
    fallback_since: datetime | None = None
    """When the present stretch of fallback runs began, if an earlier run has told it."""
    progress_seconds: float | None = None
    shadow: bool = False
    away: Outage | None = None
    """The stretch without a provider that ends with this cycle, if there was one."""
    unowned_runs: int = 0
    """As carried from the runs before it, like `seen_up_to`."""
    seen_up_to: datetime | None = None
    fingerprint: str | None = None
    """As the resolution had it: while the record has it still, nothing is resolved again."""


class TableProgress(Message):
    """What one cycle did to one table. `rows`, `links` and `deletes` count effects, not reads."""

    table: str
    captured: int = 0
    """Row versions read from the write-db."""
    expected: int | None = None
    """Row versions to read in all, of a running cycle that needs more than one batch for them."""
    rows: int = 0
    """Rows inserted or changed in the graph-db."""
    links: int = 0
    """Link rows inserted or removed."""
    deletes: int = 0
    parked: int = 0
    """Rows, links and references that wait for a missing parent now."""
    failures: int = 0
    """Rows that the graph-db refused in this cycle, first or again; 1 more if the table failed."""
    dead_letters: int = 0
    """Rows that were refused and have not landed since, now: those to be retried and the dead."""
    drained: bool = False
    error: str | None = None
    reread: str | None = None
    """Why every row of it is read again; `compared`: why rows that the write-db has no more are sought."""
    compared: str | None = None


class CycleProgress(SparseMessage):
    """Heartbeat details of a running cycle, and payload of signal `cycle_progress`."""

    phase: str
    """`capture`, `vectors` or `finish`."""
    tables: tuple[TableProgress, ...] = ()
    vectors: int = 0

    @property
    def committed(self) -> "Committed":
        """What the cycle has committed so far."""
        failures = sum(table.failures for table in self.tables)
        return _committed(self.tables, vectors=self.vectors, failures=failures)


class CycleStatus(StrEnum):
    """How a cycle ended."""

    DRAINED = "drained"
    """Nothing was pending when it ended."""
    BUDGET_SPENT = "budget_spent"
    """The time budget ended first; the next run goes on from the committed cursor."""
    ALREADY_RUNNING = "already_running"
    """Another cycle holds the graph; this one did nothing."""
    VECTORS_DELAYED = "vectors_delayed"
    """The graph-db is drained; the vector store or the embedding service was away, the outbox waits."""
    FAILED = "failed"
    """A table failed; the others went on."""
    HELD = "held"
    """There was no cycle: nobody has the provider, and `on_missing` is `hold`. What is pending waits."""


class VectorProgress(Message):
    """What one cycle did to the vector store."""

    upserted: int = 0
    deleted: int = 0
    embedded: int = 0
    """Texts that the embedding service has embedded: unchanged text is not sent."""
    pending: int = 0
    """Outbox entries left for the next cycle; refused ones are not among them."""
    error: str | None = None
    """Why entries are left, since when, until when: the vector store or the service refuses, or is away."""
    refused: int = 0
    """Points that were refused by themselves and not written since: those to be retried and the dead."""
    refusal: str | None = None
    """Why one of them was refused."""
    rebuilt: tuple[str, ...] = ()
    """Collections that the vector store had lost; all their points are written again."""


class OpenWriter(Message):
    """The oldest open writing transaction of the write-db's cluster; it holds the capture horizon back."""

    age_seconds: float | None = None
    """Null when the worker's role may not see it: grant it pg_read_all_stats."""
    database: str | None = None
    application_name: str | None = None


class SyncResult(SparseMessage):
    """What one cycle did. A provider returns it; the run's result carries it."""

    status: CycleStatus
    tables: tuple[TableProgress, ...] = ()
    vectors: VectorProgress = VectorProgress()
    failures: int = 0
    """Rows refused in this cycle plus failed tables."""
    parked: int = 0
    """Rows, links and references of the graph that wait for a missing parent now."""
    dead_letters: int = 0
    """Rows of the graph that were refused and have not landed since: those to be retried and the dead."""
    lag_seconds: float = 0.0
    """How far the graph-db may be behind the write-db when the cycle ended, as far as that is known."""
    lag_known: bool = True
    oldest_writer: OpenWriter | None = None
    batches: int = 0
    duration_seconds: float = 0.0
    rescanned: bool = False
    """The cursor was of another cluster or of a later point in time, so every row was read again."""
    rescan_reason: str | None = None
    unknown: tuple[str, ...] = ()
    """What cannot be known of this write-db, in sentences: a standby, or a right that the role lacks."""
    owes: bool = False
    """Whether there is more to do even if nothing changes: rows that wait for a transaction, retries."""
    look_owed: bool = False
    """Whether another run found the graph taken, and time was up before this one looked once more."""
    served: Served | None = None
    """Filled in by the worker, whatever the provider says."""
    holder: LockHolder | None = None
    """Who held the graph, if that is why nothing was done."""
    unowned: bool = False
    """Whether no other run of the graph was open when it was found taken. Filled in by the worker."""
    blocked: bool = False
    """Whether that was so in the run before, too."""

    @property
    def ended_as(self) -> str:
        """How the cycle ended, in the word for people and search attributes."""
        return BLOCKED if self.blocked else self.status.value

    @property
    def looked(self) -> bool:
        """Whether the write-db was looked at."""
        return self.status not in (CycleStatus.ALREADY_RUNNING, CycleStatus.HELD)

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do, and nothing is to be done unless something changes."""
        captured = any(table.captured for table in self.tables)
        worked = captured or self.rows or self.links or self.vectors.upserted or self.vectors.deleted
        return self.drained and not (worked or self.owes or self.failures)

    @property
    def drained(self) -> bool:
        """Whether nothing was pending when the cycle ended."""
        return self.status is CycleStatus.DRAINED

    @property
    def rows(self) -> int:
        """Rows inserted, changed or deleted in the graph-db."""
        return self.committed.rows

    @property
    def links(self) -> int:
        """Link rows inserted or removed."""
        return self.committed.links

    @property
    def committed(self) -> "Committed":
        """What the cycle has committed."""
        return _committed(self.tables, vectors=self.vectors.upserted, failures=self.failures)


class Totals(Message):
    """Sums over the runs of one graph since its state was first carried."""

    runs: int = 0
    """All that have ended by themselves; not those that were cancelled, terminated or timed out."""
    failed: int = 0
    """Those of them that failed."""
    rows: int = 0
    """As the next two: also what a run has committed that failed then."""
    links: int = 0
    vectors: int = 0
    failures: int = 0


class Committed(Message):
    """What a cycle had committed when it raised: the last of the details of its error."""

    rows: int
    links: int
    vectors: int
    failures: int


def _committed(tables: Sequence[TableProgress], *, vectors: int, failures: int) -> Committed:
    return Committed(
        rows=sum(table.rows + table.deletes for table in tables),
        links=sum(table.links for table in tables),
        vectors=vectors,
        failures=failures,
    )


class CarriedState(Message):
    """What one run hands to the next, in its result or in the details of its failure."""

    of_run: str | None = None
    """The run that tells this; null of an earlier release's, and as long as nothing is known."""
    as_of: datetime | None = None
    """When that run told it: at its end, or once it had resolved."""
    after_run: str | None = None
    """The run that it goes on from; null if it knew of none: it was the first, or was started by hand."""
    after_at: datetime | None = None
    """When that one had told its state."""
    resolved_run: str | None = None
    """The last run that knew whether a provider is there; an earlier one if `of_run` failed in resolution."""
    resolved_at: datetime | None = None
    totals: Totals = Totals()
    consecutive_fallback_runs: int = 0
    first_fallback_at: datetime | None = None
    """When the present stretch of fallback runs began; null while a provider serves the graph."""
    consecutive_held_runs: int = 0
    held_since: datetime | None = None
    """When the present stretch of held runs began; null unless the last run was held."""
    returning: Outage | None = None
    """The stretch without a provider that has ended, as long as no cycle of the provider has succeeded."""
    last_return: OutageEnded | None = None
    """The last time that a provider came back; null if none was ever away."""
    cadence: Cadence | None = None
    """How often an adaptive graph is run now; null for the others."""
    unowned_runs: int = 0
    """Runs in a row that found the graph taken while no other run of it was open; two make it blocked."""
    unowned_since: datetime | None = None
    """When the first of them ended."""
    seen_up_to: datetime | None = None
    """Up to when the graph-db has the write-db, by the last run that looked; null if that is not known."""

    def followed_by(self, result: SyncResult, *, now: datetime) -> Self:
        """Return what is carried on of whether the graph can be had, and up to when it was looked at."""
        seen = self.seen_up_to
        if result.looked:
            seen = now - timedelta(seconds=result.lag_seconds) if result.lag_known else None
        return self.model_copy(
            update={
                "unowned_runs": self.unowned_runs + 1 if result.unowned else 0,
                "unowned_since": self.unowned_since or now if result.unowned else None,
                "seen_up_to": seen,
            }
        )

    @property
    def outage(self) -> Outage | None:
        """The stretch without a provider whose end has not been told."""
        if self.held_since is not None:
            return Outage(how=OutageKind.HELD, since=self.held_since)
        if self.first_fallback_at is not None:
            return Outage(how=OutageKind.FALLBACK, since=self.first_fallback_at)
        return self.returning

    def provider_state(self, answer: "ProviderResolution | SyncGraphResult | HandedOn") -> ProviderState:
        """Return what a resolution says, or a run at its end, with what is carried of the runs before it."""
        return ProviderState(
            of_run=self.resolved_run,
            as_of=self.resolved_at,
            after_run=self.after_run,
            provider_id=answer.provider_id,
            provider_version=answer.provider_version,
            fallback=answer.fallback,
            fallback_since=self.first_fallback_at,
            consecutive_fallback_runs=self.consecutive_fallback_runs,
            held=answer.held,
            held_since=self.held_since,
            consecutive_held_runs=self.consecutive_held_runs,
            last_return=self.last_return,
        )


class SyncGraphResult(Message):
    """Result of workflow `SyncGraph`."""

    graph: GraphRef
    provider_id: str | None = None
    provider_version: str | None = None
    fallback: Fallback | None = None
    held: Held | None = None
    failures: int = 0
    result: SyncResult
    carried: CarriedState = CarriedState()

    def kept_json(self) -> bytes:
        """Return everything, but of tables and what is carried on only what is not a default."""
        kept = self.model_dump(mode="json")
        kept["carried"] = self.carried.model_dump(mode="json", exclude_defaults=True)
        kept["result"]["tables"] = [
            table.model_dump(mode="json", exclude_defaults=True) for table in self.result.tables
        ]
        return to_json(kept)


class HandedOn(SparseMessage):
    """The last of the details of a failure that ends a run: what the next run goes on from."""

    graph: GraphRef | None = None
    """Whose state it is; null if no run has resolved the graph."""
    named: str | None = None
    """Then, how the run was told which graph."""
    provider_id: str | None = None
    provider_version: str | None = None
    fallback: Fallback | None = None
    held: Held | None = None
    carried: CarriedState

    @property
    def resolved(self) -> bool:
        """Whether the run itself had found out who serves the graph."""
        return self.carried.of_run is not None and self.carried.of_run == self.carried.resolved_run

    @property
    def provider(self) -> ProviderState:
        """Which provider served the graph when that was last resolved."""
        return self.carried.provider_state(self)

    @classmethod
    def of(cls, result: SyncGraphResult) -> "HandedOn":
        """Return what a run that completed hands on."""
        return cls(
            graph=result.graph,
            provider_id=result.provider_id,
            provider_version=result.provider_version,
            fallback=result.fallback,
            held=result.held,
            carried=result.carried,
        )


class RunPhase(StrEnum):
    """Where a run is."""

    RESOLVING = "resolving"
    SYNCING = "syncing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SyncState(Message):
    """Answer to query `sync_state`."""

    graph: str | None = None
    phase: RunPhase = RunPhase.RESOLVING
    resolved: bool = True
    """Whether this run has found out who serves the graph; else `provider` is what an earlier one found."""
    provider: ProviderState = ProviderState()
    progress: CycleProgress | None = None
    last_result: SyncResult | None = None
    """This run's result once it has one, the previous run's before that."""
    carried: CarriedState = CarriedState()
    """What was carried to this run until it has resolved or ended, then its own."""
    signals: tuple[ProviderFallback | ProviderHeld | ProviderReturned, ...] = ()
    """What was signalled to this run about its provider."""
    error: str | None = None
    """Why the run failed, once it has."""


class SyncEvent(Message):
    """NOTIFY payload on channel `syncline` of the graph-db: what downstream caches listen for.

    One per run that changed something; several, with other tables each, if one would exceed 8,000 bytes.
    """

    graph: str
    graph_id: UUID
    run_id: str
    rows: dict[str, int]
    """Table -> rows inserted, changed or deleted; only tables that changed."""
    links: dict[str, int]
    failures: int


class ReconciliationProgress(Message):
    """Heartbeat details of activity `reconcile_schedules`."""

    done: int = 0
    graphs: int = 0


class Reconciliation(Message):
    """Result of workflow `ReconcileSchedules`: what it took to make the Schedules match the graphs."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    refusals: int = 0
    """Graphs whose Schedule could not be made to match; it stays as it is."""
    created_graphs: tuple[str, ...] = ()
    """Slugs, as in the fields below: the first hundred."""
    updated_graphs: tuple[str, ...] = ()
    deleted_graphs: tuple[str, ...] = ()
    refused: dict[str, str] = Field(default_factory=dict)
    """Slug -> what is wrong and what to do, in a sentence; the first hundred."""
    never_due: int = 0
    """Graphs whose Schedule never comes again though it is not paused, as their record asks or not."""
    never_due_graphs: dict[str, str] = Field(default_factory=dict)
    """Slug -> that, why if it is known, and the fix, in sentences; the first hundred."""

    @property
    def changed(self) -> int:
        """Schedules that were written."""
        return self.created + self.updated + self.deleted
