"""Messages of the sync and reconciliation workflows: frozen, keyword-only, one in and one out.

A new field always has a default, so that histories recorded by an older release still decode. Messages
contain neither rows nor secrets. One module because they are read and changed together, as wire format.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import to_json

from syncline import names
from syncline.errors import EmbeddingBudgetSpent, InputInvalid
from syncline.messages.base import (
    Fairness,
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
    UsedMap,
)

LONGEST_RUN: Final = timedelta(hours=3)
"""Execution timeout of every `SyncGraph` run: a run that no worker can continue must end at some point."""


BLOCKED: Final = "blocked"
"""Replaces `already_running` once no open run holds the graph's lock, so that no worker will release it."""


class SyncGraphInput(OperatorInput):
    """Input of workflow `SyncGraph`, as operators type it: `{"graph": "world"}`."""

    workflow = names.SYNC_GRAPH

    graph: GraphName | None = None
    """Slug or id; null: no graph context, that is the default graph through the built-in engine."""
    batch_rows: int | None = Field(default=None, ge=1, le=1_000_000)
    """Maximum rows of one committed batch; null: SYNCLINE_BATCH_ROWS of the worker."""
    time_budget_seconds: float | None = Field(default=None, gt=0, le=3600)
    """Seconds after which the cycle stops draining; null: SYNCLINE_CYCLE_SECONDS of the worker."""
    progress_seconds: float | None = Field(default=None, ge=1, le=3600)
    """Seconds between two heartbeats with new progress; null: 5 s.

    The run is signalled every 60 s, or at this interval if it is longer.
    """
    shadow: bool = False
    """Run a cycle of the graph's shadow instead; the live graph is not touched."""

    @model_validator(mode="after")
    def _a_shadow_is_of_a_graph(self) -> Self:
        if self.shadow and self.graph is None:
            raise InputInvalid("`shadow` needs `graph`: name the graph of the shadow.")
        return self

    @property
    def about(self) -> str | None:
        """Value of the run's search attribute `SynclineGraph`."""
        return self.graph if self.graph is None or not self.shadow else names.shadow_slug(self.graph)


class ResolveProviderRequest(SparseMessage):
    """Input of activity `resolve_provider`."""

    graph: str | None = None
    unanswered: str | None = None
    """The provider that this run was resolved to before, whose cycle no worker started."""
    shadow: bool = False
    """Resolve the provider of the graph's shadow."""
    fairness: bool = False
    """Return the graph's fairness too: the run was started without."""


class CadenceRules(Message):
    """The intervals at which an adaptive graph may run, by its record."""

    intervals: tuple[int, ...]
    """In seconds, ascending. The first is the base, and the only one while changes are not announced."""
    fingerprint: str
    """Fingerprint of the Schedule by the record: a changed record starts at the base again."""
    unheard: str | None = None
    """Why a change would not be announced by NOTIFY, in a sentence; null if it would."""


class Cadence(Message):
    """The current interval of an adaptive graph's Schedule, and why."""

    every_seconds: int
    base_seconds: int
    reason: str
    """One sentence for operators."""
    since: datetime
    fingerprint: str
    idle_since: datetime | None = None
    """End of the first run since which nothing has changed; null if the last run did something."""


class SetCadenceRequest(Message):
    """Input of activity `set_cadence`."""

    graph: str
    """Slug of the graph."""
    every_seconds: int
    fingerprint: str
    """A Schedule with another fingerprint was made from another record and is not changed."""


class ProviderResolution(SparseMessage):
    """Result of activity `resolve_provider`: names and reasons; contains neither options nor secrets."""

    graph: GraphRef
    provider_id: str | None = None
    provider_version: str | None = None
    distribution: str | None = None
    """The installed distribution that contains the provider, as `name version`."""
    api_version: int | None = None
    task_queue: str | None = None
    """Task queue polled by the workers that have a routed provider; null: the run's own task queue."""
    answer_seconds: float | None = None
    """Seconds that the cycle waits there for a worker before the provider is resolved again."""
    fallback: Fallback | None = None
    held: Held | None = None
    """If set, `provider_id` is the provider that the graph waits for."""
    cadence: CadenceRules | None = None
    """Null for a graph whose Schedule keeps its interval."""
    shadowed: bool = False
    """Whether this run starts a run of the graph's shadow at its end."""
    fingerprint: str | None = None
    """Fingerprint of the graph's record at resolution; null without a provider, and from an older worker."""
    map: UsedMap | None = None
    """The stored map that the composition names for the built-in provider, and its version for this run."""
    fairness: Fairness | None = None
    """The tenant that the cycle is counted to while it waits; null if the run itself says so."""


class SyncCycleRequest(SparseMessage):
    """Input of activity `sync_cycle`."""

    graph: GraphRef
    provider_id: str | None = None
    """Null: run the built-in engine directly."""
    batch_rows: int | None = None
    time_budget_seconds: float | None = None
    fallback_since: datetime | None = None
    """When the current fallback outage began, if an earlier run recorded it."""
    progress_seconds: float | None = None
    shadow: bool = False
    away: Outage | None = None
    """The outage that ends with this cycle, if there was one."""
    unowned_runs: int = 0
    """Carried from earlier runs, like `seen_up_to`."""
    seen_up_to: datetime | None = None
    fingerprint: str | None = None
    """Fingerprint of the record at resolution: while it is unchanged, the activity does not resolve again."""
    map: UsedMap | None = None
    """The stored map at resolution."""
    linger: bool = False
    """Whether the cycle may stay open for further changes: only a run of the graph's Schedule."""


class TableProgress(Message):
    """What one cycle did to one table. `rows`, `links` and `deletes` count effects, not reads."""

    table: str
    captured: int = 0
    """Row versions read from the write-db."""
    expected: int | None = None
    """Row versions to read in total, in a running cycle that needs more than one batch."""
    rows: int = 0
    """Rows inserted or changed in the graph-db."""
    links: int = 0
    """Link rows inserted or removed."""
    deletes: int = 0
    parked: int = 0
    """Parked rows, links and references: their parent is missing in the graph-db."""
    failures: int = 0
    """Rows that the graph-db rejected in this cycle, new or retried; plus 1 if the table failed."""
    dead_letters: int = 0
    """Rejected rows not applied since: those waiting for a retry and the dead."""
    drained: bool = False
    loading: bool = False
    """Whether its load goes on; what is written meanwhile overtakes it."""
    error: str | None = None
    reread: str | None = None
    """Why every row is read again. `compared`: why keys are compared to find rows deleted in the write-db."""
    compared: str | None = None


class NewColumn(Message):
    """A column that was added to a source, that the map does not name, and about which nobody has decided."""

    table: str = ""
    """The table map."""
    source: str = ""
    """Its table in the write-db, with the schema."""
    column: str = ""
    type: str = ""
    """With its length or digits."""
    problem: str | None = None
    """Why it cannot be taken as it is, in a sentence; null if it can."""
    fix: str = ""
    """What takes it or leaves it alone, in sentences."""


class Withheld(Message):
    """Rows of a table that the write-db turned out not to have: too many to remove them unasked."""

    table: str = ""
    rows: int = 0
    of: int = 0
    """How many rows were compared."""
    reason: str = ""
    """Why they were."""


class Owed(Message):
    """A foreign key or an index of the graph-db that a first load has put off, and that is not back yet."""

    table: str = ""
    name: str = ""
    kind: str = ""
    """`index` or `foreign key`."""
    not_valid: bool = False
    """Whether it is there for new rows, and the others were not checked yet."""
    problem: str | None = None
    """Why Postgres refused it at the last try; null: it was not tried."""
    statement: str = ""
    """What puts it back, with the graph's schema on the search_path; a cycle runs it by itself."""


class Waiting(Message):
    """A service that a running cycle waits for: it answers neither requests nor probes."""

    on: str
    """Such as `vector store 'qdrant'`."""
    since: datetime
    """When the oldest request without an answer was sent."""


class LoadRanges(Message):
    """How far the load of a table is that several lanes read in ranges."""

    table: str = ""
    cut: int = 0
    """Ranges so far: each has as many rows as a lane applies in some seconds."""
    done: int = 0
    lanes: int = 0
    """Lanes that have taken a range in the last seconds, the cycle's own with them."""


class LanesCalled(Message):
    """Payload of signal `lanes_called`."""

    attempt: int = 1
    """The attempt of the cycle. Lanes of an earlier one end by themselves."""
    lanes: int = 1
    """How many it wants beside its own."""


class LoadRangesRequest(SparseMessage):
    """Input of activity `load_ranges`."""

    graph: GraphRef
    lane: int = 1
    """Its number in the run, from 1."""
    attempt: int = 1
    """The attempt of the cycle that it belongs to."""
    provider_id: str | None = None
    batch_rows: int | None = None
    shadow: bool = False
    fingerprint: str | None = None
    map: UsedMap | None = None
    """As the cycle has them."""


class LaneEnd(StrEnum):
    """Why a lane beside a cycle ended."""

    DONE = "done"
    """No load is read in ranges any longer."""
    TIME = "time"
    """Its time was over."""
    FENCED = "fenced"
    """Another attempt, or another run, has the graph."""
    FAILED = "failed"
    """What it tried failed; the cycle tries it again, and reports it."""


class LaneResult(Message):
    """Result of activity `load_ranges`: what one lane has done. Query `sync_state` has it too."""

    end: LaneEnd = LaneEnd.DONE
    ranges: int = 0
    batches: int = 0
    captured: int = 0
    """Rows read from the write-db."""
    problem: str | None = None
    """Why it failed."""


class CycleProgress(SparseMessage):
    """Heartbeat details of a running cycle, and payload of signal `cycle_progress`."""

    phase: str
    """`capture`, `vectors` or `finish`; `linger` while it has drained and stays open for further changes."""
    tables: tuple[TableProgress, ...] = ()
    vectors: int = 0
    waiting: Waiting | None = None
    """Null while its services answer."""
    ranges: tuple[LoadRanges, ...] = ()
    """Loads that are read in ranges, by several lanes."""

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
    """The time budget ended first; the next run continues from the committed cursor."""
    ALREADY_RUNNING = "already_running"
    """Another cycle holds the graph; this one did nothing."""
    VECTORS_DELAYED = "vectors_delayed"
    """The graph-db is drained; the vector store or embedding service was unavailable, the outbox is kept."""
    FAILED = "failed"
    """A table failed; the other tables continued."""
    HELD = "held"
    """No cycle ran: no worker has the provider, and `on_missing` is `hold`. Pending changes wait."""


class SecondVectors(Message):
    """What one cycle did to the second generation of a graph's vectors: its embedding model changes."""

    upserted: int = 0
    deleted: int = 0
    embedded: int = 0
    pending: int = 0
    error: str | None = None
    refused: int = 0
    refusal: str | None = None
    rebuilt: tuple[str, ...] = ()
    live: bool = False
    """Whether readers look at it."""


class VectorProgress(Message):
    """What one cycle did to the vector store."""

    upserted: int = 0
    deleted: int = 0
    embedded: int = 0
    """Texts embedded by the embedding service; unchanged text is not sent."""
    pending: int = 0
    """Outbox entries left for the next cycle, without rejected ones."""
    error: str | None = None
    """Why entries are left, since when, until when: the vector store or service rejects or is unavailable."""
    refused: int = 0
    """Points rejected individually and not written since: those waiting for a retry and the dead."""
    refusal: str | None = None
    """Why one of them was rejected."""
    rebuilt: tuple[str, ...] = ()
    """Collections missing in the vector store; all their points are written again."""
    second: SecondVectors | None = None
    """What it did for the model that the graph changes to; null: nothing, or there is none."""

    @property
    def budget_spent(self) -> bool:
        """Whether texts wait because a budget of tokens is spent."""
        return f"{EmbeddingBudgetSpent.__name__}: " in (self.error or "")


class EmbeddingUsed(Message):
    """What one cycle used of the embedding service, and what is used of the day (UTC)."""

    texts: int = 0
    tokens: int = 0
    estimated: int = 0
    """Those of the tokens that the service did not count itself."""
    requests: int = 0
    refused: int = 0
    """Texts of requests that the service refused or did not answer."""
    today: int | None = None
    """Tokens of the graph today; null if they could not be booked yet."""
    budget: int | None = None
    """Tokens that the graph may use a day; null: no limit."""
    service_today: int | None = None
    service_budget: int | None = None

    def plus(self, second: "EmbeddingUsed | None") -> "EmbeddingUsed":
        """Return it with what the cycle used of a second service; the days are the first one's."""
        if second is None:
            return self
        counts = ("texts", "tokens", "estimated", "requests", "refused")
        summed = {name: getattr(self, name) + getattr(second, name) for name in counts}
        return self.model_copy(update={**summed, "today": second.today or self.today})


class OpenWriter(Message):
    """The oldest open writing transaction of the write-db; it holds back the capture horizon."""

    age_seconds: float | None = None
    """Null if the worker's role may not see it: grant pg_read_all_stats."""
    database: str | None = None
    application_name: str | None = None


class SyncResult(SparseMessage):
    """What one cycle did. Returned by the provider, and part of the run's result."""

    status: CycleStatus
    tables: tuple[TableProgress, ...] = ()
    vectors: VectorProgress = VectorProgress()
    embedding: EmbeddingUsed | None = None
    """What was used of the embedding service; null: nothing."""
    failures: int = 0
    """Rows rejected in this cycle plus failed tables."""
    parked: int = 0
    """Parked rows, links and references of the graph: their parent is missing in the graph-db."""
    dead_letters: int = 0
    """Rejected rows of the graph not applied since: those waiting for a retry and the dead."""
    lag_seconds: float = 0.0
    """Upper bound on the graph-db's lag behind the write-db at the end of the cycle; see `lag_known`."""
    lag_known: bool = True
    max_lag_seconds: int | None = None
    """The lag that the graph's record allows; null: nothing is promised. Set by the worker."""
    oldest_writer: OpenWriter | None = None
    batches: int = 0
    duration_seconds: float = 0.0
    rescanned: bool = False
    """The cursor belonged to another cluster or a later point in time, so every row was read again."""
    rescan_reason: str | None = None
    """Why, or why it went back to a checkpoint."""
    rewound_to: datetime | None = None
    """The write-db may lack its last transactions, as after a promotion or a crash: what was read since this
    time was read again."""
    rewound_rows: int = 0
    """How many rows were requested by key for that; others came as changes."""
    unknown: tuple[str, ...] = ()
    """What this write-db does not reveal, in sentences: it is a standby, or the role lacks a privilege."""
    map_changes: tuple[str, ...] = ()
    """How the graph's table map has changed since the last cycle, in a sentence for each table that is not
    read again: it left, or its points or counts are made again. Of the others, `reread` has the reason."""
    new_columns: tuple[NewColumn, ...] = ()
    """Columns that were added to sources and wait for a decision."""
    owed: tuple[Owed, ...] = ()
    """Foreign keys and indexes that a first load has put off, and that are not back yet."""
    withheld: tuple[Withheld, ...] = ()
    """What `syncline verify --repair` removes, and no cycle does unasked."""
    load_notes: tuple[str, ...] = ()
    """Which tables kept keys or indexes in the first load, or had one lane, and why, in sentences."""
    owes: bool = False
    """Whether work is left even if nothing changes: rows behind an open transaction, retries."""
    look_owed: bool = False
    """Whether another run is due at once: one found the lock taken, and this cycle had no time left for
    another capture; or this one lingered as long as it may, and changes still came."""
    lingered_seconds: float = 0.0
    """How long the cycle stayed open for further changes after it had drained; not in `duration_seconds`."""
    lingered_passes: int = 0
    """How often it has found some in that time; the counts are of all."""
    served: Served | None = None
    """Set by the worker; the provider's value is overwritten."""
    holder: LockHolder | None = None
    """The session that held the graph's lock, with status `already_running`."""
    unowned: bool = False
    """Whether the lock was taken while no other run of the graph was open. Set by the worker."""
    blocked: bool = False
    """Whether the previous run was `unowned` too."""

    @property
    def late(self) -> bool:
        """Whether the graph-db is further behind than the graph's record allows."""
        promised = self.max_lag_seconds
        return promised is not None and self.lag_known and self.lag_seconds > promised

    @property
    def ended_as(self) -> str:
        """`status`, or `blocked`: the value for people and search attributes."""
        return BLOCKED if self.blocked else self.status.value

    @property
    def looked(self) -> bool:
        """Whether the cycle read from the write-db."""
        return self.status not in (CycleStatus.ALREADY_RUNNING, CycleStatus.HELD)

    @property
    def idle(self) -> bool:
        """Whether the cycle had nothing to do, and the next one has nothing to do without a change."""
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
    """Sums over the runs of one graph since its state is carried from run to run."""

    runs: int = 0
    """Runs that completed or failed; not those cancelled, terminated or timed out."""
    failed: int = 0
    """Those of them that failed."""
    rows: int = 0
    """Like the next two, includes what failed runs had committed."""
    links: int = 0
    vectors: int = 0
    failures: int = 0


class Committed(Message):
    """What a cycle had committed when it raised: the last of its error's details."""

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
    """State that one run hands to the next, in its result or in the details of its failure."""

    of_run: str | None = None
    """The run that wrote this state; null from an earlier release, and as long as nothing is known."""
    as_of: datetime | None = None
    """When that run wrote it: at its end, or once it had resolved the provider."""
    after_run: str | None = None
    """The previous run that it continues; null if it knew of none: the first run, or a manual one."""
    after_at: datetime | None = None
    """When that run wrote its state."""
    resolved_run: str | None = None
    """The last run that resolved the provider; an earlier one if `of_run` failed in resolution."""
    resolved_at: datetime | None = None
    totals: Totals = Totals()
    consecutive_fallback_runs: int = 0
    first_fallback_at: datetime | None = None
    """When the current fallback outage began; null while a provider serves the graph."""
    consecutive_held_runs: int = 0
    held_since: datetime | None = None
    """When the current held outage began; null unless the last run was held."""
    returning: Outage | None = None
    """The outage that has ended, until a cycle of the provider succeeds."""
    last_return: OutageEnded | None = None
    """The last time that a provider returned; null if there was no outage."""
    cadence: Cadence | None = None
    """Current cadence of an adaptive graph; null for other graphs."""
    unowned_runs: int = 0
    """Consecutive runs that found the lock taken while no other run was open; two make the graph blocked."""
    unowned_since: datetime | None = None
    """When the first of those runs ended."""
    seen_up_to: datetime | None = None
    """The graph-db contains the write-db up to this time, by the last run that read it; null if unknown."""

    def followed_by(self, result: SyncResult, *, now: datetime) -> Self:
        """Return the state with `unowned_*` and `seen_up_to` updated from the result of a cycle."""
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
        """The outage whose end has not been signalled."""
        if self.held_since is not None:
            return Outage(how=OutageKind.HELD, since=self.held_since)
        if self.first_fallback_at is not None:
            return Outage(how=OutageKind.FALLBACK, since=self.first_fallback_at)
        return self.returning

    def provider_state(self, answer: "ProviderResolution | SyncGraphResult | HandedOn") -> ProviderState:
        """Return the provider state of a resolution, or of a run's end, with the carried outage counts."""
        return ProviderState(
            of_run=self.resolved_run,
            as_of=self.resolved_at,
            after_run=self.after_run,
            provider_id=answer.provider_id,
            provider_version=answer.provider_version,
            map=answer.map,
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

    @property
    def map(self) -> UsedMap | None:
        """The stored map of the cycle."""
        return None if self.result.served is None else self.result.served.map

    def kept_json(self) -> bytes:
        """Return all fields, but of `tables` and `carried` only those that differ from their defaults."""
        kept = self.model_dump(mode="json")
        kept["carried"] = self.carried.model_dump(mode="json", exclude_defaults=True)
        kept["result"]["tables"] = [
            table.model_dump(mode="json", exclude_defaults=True) for table in self.result.tables
        ]
        return to_json(kept)


class HandedOn(SparseMessage):
    """The last of the details of a failure that ends a run: the state that the next run continues from."""

    graph: GraphRef | None = None
    """The graph of this state; null if no run has resolved the graph."""
    named: str | None = None
    """Without `graph`: the slug or id in the run's input."""
    provider_id: str | None = None
    provider_version: str | None = None
    fallback: Fallback | None = None
    held: Held | None = None
    map: UsedMap | None = None
    carried: CarriedState

    @property
    def resolved(self) -> bool:
        """Whether the run itself had resolved the provider."""
        return self.carried.of_run is not None and self.carried.of_run == self.carried.resolved_run

    @property
    def provider(self) -> ProviderState:
        """The provider state as of the last resolution."""
        return self.carried.provider_state(self)

    @classmethod
    def of(cls, result: SyncGraphResult) -> "HandedOn":
        """Return the state that a completed run hands on."""
        return cls(
            graph=result.graph,
            provider_id=result.provider_id,
            provider_version=result.provider_version,
            fallback=result.fallback,
            held=result.held,
            map=result.map,
            carried=result.carried,
        )


class RunPhase(StrEnum):
    """Phase of a run."""

    RESOLVING = "resolving"
    SYNCING = "syncing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SyncState(Message):
    """Result of query `sync_state`."""

    graph: str | None = None
    phase: RunPhase = RunPhase.RESOLVING
    resolved: bool = True
    """Whether this run has resolved the provider; otherwise `provider` is that of an earlier run."""
    provider: ProviderState = ProviderState()
    progress: CycleProgress | None = None
    last_result: SyncResult | None = None
    """This run's result once it has one, until then the previous run's."""
    carried: CarriedState = CarriedState()
    """State carried to this run until it has resolved or ended, then its own."""
    signals: tuple[ProviderFallback | ProviderHeld | ProviderReturned, ...] = ()
    """Provider signals that this run has received."""
    lanes: tuple[LaneResult, ...] = ()
    """What lanes beside the cycle have done, one entry a time that an activity of them has ended."""
    error: str | None = None
    """Why the run failed, once it has."""


class SyncEvent(Message):
    """NOTIFY payload on channel `syncline` of the graph-db, for readers such as caches.

    One event per run that changed something; several with different tables if one would exceed 8,000 bytes.
    """

    graph: str
    graph_id: UUID
    run_id: str
    rows: dict[str, int]
    """Table to rows inserted, changed or deleted; only tables that changed."""
    links: dict[str, int]
    failures: int


class ReconciliationProgress(Message):
    """Heartbeat details of activity `reconcile_schedules`."""

    done: int = 0
    graphs: int = 0


class Reconciliation(Message):
    """Result of workflow `ReconcileSchedules`: the Schedules that it changed to match the graphs."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    refusals: int = 0
    """Graphs whose Schedule could not be changed to match; it stays as it is."""
    created_graphs: tuple[str, ...] = ()
    """Slugs, here and in the fields below the first 100."""
    updated_graphs: tuple[str, ...] = ()
    deleted_graphs: tuple[str, ...] = ()
    refused: dict[str, str] = Field(default_factory=dict)
    """Slug to problem and fix, in a sentence; the first 100."""
    never_due: int = 0
    """Graphs whose Schedule is not paused but has no future time, whether by their record or not."""
    never_due_graphs: dict[str, str] = Field(default_factory=dict)
    """Slug to the problem, its cause if known, and the fix, in sentences; the first 100."""

    @property
    def changed(self) -> int:
        """Schedules that were written."""
        return self.created + self.updated + self.deleted
