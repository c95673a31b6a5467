"""The error hierarchy: each message names the object and the fix, each class declares its retryability.

    SynclineError
    ├── ConfigurationError            not retryable: an operator has to change something
    │   ├── SettingsInvalid           a SYNCLINE_* setting is missing or malformed
    │   ├── StoreNotConfigured        a graph refers to a store key that no setting defines
    │   ├── GraphNotFound             no graph has this slug or id
    │   ├── GraphInvalid              a graph record breaks a rule (slug, schema, prefix, …)
    │   ├── CompositionInvalid        a graph's composition breaks its model
    │   ├── MapInvalid                a map document breaks its model, or contradicts itself
    │   ├── MapNotFound               no map of this name and version is stored
    │   ├── TenantInvalid             a composition gives a map no tenant, or one that does not fit
    │   ├── ProviderDuplicate         two distributions contribute one provider id
    │   ├── ProviderInvalid           a contributed object is not a provider
    │   ├── ProviderMissing           `on_missing: fail`, and no worker can run the provider
    │   ├── CompositionChanged        the graph's provider changed during the run
    │   ├── ShadowInvalid             a graph has no shadow, or none that can be run or promoted
    │   ├── TakeoverRefused           a graph has been synced: there is nothing to take over
    │   ├── EmbeddingChangeRefused    a step of changing a graph's embedding cannot be done now
    │   ├── RebuildRefused            a step of rebuilding a graph cannot be done now
    │   ├── OperationRefused          the worker does not serve this operation (SYNCLINE_OPERATIONS)
    │   ├── InputInvalid              the input of a workflow, as typed by an operator, breaks its model
    │   ├── TokenRefused              a token is none, or of another database or history
    │   ├── SchemaMismatch            tables of a graph's schema do not match its table map
    │   ├── ScheduleNotFound          no graph's Schedule has this name
    │   ├── ScheduleForeign           a Schedule with a graph's id starts something else
    │   ├── SchedulePaused            a Schedule is paused because its graph is
    │   ├── SampleInvalid             sample data is not what its loader expects
    │   └── DevStackError             the development stack cannot start as declared
    ├── StoreError                    a Postgres store failed
    │   ├── StoreUnavailable          retryable: connection, timeout, shutdown, too many clients
    │   │   └── StatementOutdated     retryable: a prepared statement's table has changed
    │   ├── StoreUnusable             retryable: this process cannot log in; another worker may
    │   │   └── PoolerUnsupported     retryable: a transaction or statement pooler is in between
    │   └── StoreRejected             not retryable: Postgres rejected the statement (carries SQLSTATE)
    │       └── RowsFiltered          not retryable: row-level security may hide rows from the role
    ├── VectorStoreError
    │   ├── VectorStoreUnavailable    retryable
    │   └── VectorStoreRejected       not retryable (dimension, bad request, credentials)
    ├── EmbeddingError
    │   ├── EmbeddingUnavailable      retryable
    │   ├── EmbeddingBudgetSpent      retryable: the tokens of the day are used up, nothing was sent
    │   ├── EmbeddingDiffers          retryable: another worker may have the settings of the graph's vectors
    │   └── EmbeddingRejected         not retryable
    ├── ProviderMisbehaved            not retryable: a provider broke its contract and was contained
    │   ├── ProviderBlocked           retryable: the provider blocks its event loop
    │   ├── ProviderFaulty            not retryable: a cycle raised TypeError, NameError, …: its code is wrong
    │   └── ProviderNotReady          retryable: its `initialize` failed, or waits for its next attempt
    ├── ProviderGone                  retryable: this worker lacks the provider; another may have it
    ├── TemporalUnavailable           retryable: the Temporal server cannot be reached, or refuses access
    ├── NoWorker                      not retryable: no worker polls the task queue of the run
    ├── RunFailed                     not retryable: an operator's run failed, was stopped or timed out
    ├── QuestionUnanswered            not retryable: no worker answered a query of a run in time
    ├── RunNotFound                   not retryable: Temporal keeps no run of this graph
    ├── AdoptionBlocked               retryable: installing capture on a table did not get its lock
    ├── SchemaMoved                   retryable: a promotion swapped the schema after the record was read
    ├── LoadBlocked                   retryable: another session holds the lock that lanes of a load share
    ├── CycleBusy                     retryable: an earlier attempt of the same run still holds the graph
    └── CycleFenced                   not retryable: a later cycle took over; this one wrote nothing since

Retryability is declared here, translated for Temporal in `activities/`. Messages never contain credentials.
One module because it is one tree, drawn above.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Self
from uuid import UUID

from syncline.quoting import counted, path_shown, shown

__all__ = [
    "AdoptionBlocked",
    "CompositionChanged",
    "CompositionInvalid",
    "ConfigurationError",
    "CycleBusy",
    "CycleFenced",
    "DevStackError",
    "EmbeddingBudgetSpent",
    "EmbeddingChangeRefused",
    "EmbeddingDiffers",
    "EmbeddingError",
    "EmbeddingRejected",
    "EmbeddingUnavailable",
    "GraphInvalid",
    "GraphNotFound",
    "InputInvalid",
    "LoadBlocked",
    "MapInvalid",
    "MapNotFound",
    "MapProblem",
    "NoWorker",
    "OperationRefused",
    "PoolerUnsupported",
    "ProviderBlocked",
    "ProviderDuplicate",
    "ProviderFaulty",
    "ProviderGone",
    "ProviderInvalid",
    "ProviderMisbehaved",
    "ProviderMissing",
    "ProviderNotReady",
    "QuestionUnanswered",
    "RebuildRefused",
    "RowsFiltered",
    "RunFailed",
    "RunNotFound",
    "SampleInvalid",
    "ScheduleForeign",
    "ScheduleNotFound",
    "SchedulePaused",
    "SchemaMismatch",
    "SchemaMoved",
    "SettingsInvalid",
    "ShadowInvalid",
    "StatementOutdated",
    "StoreError",
    "StoreNotConfigured",
    "StoreRejected",
    "StoreUnavailable",
    "StoreUnusable",
    "SynclineError",
    "TakeoverRefused",
    "TemporalUnavailable",
    "VectorStoreError",
    "VectorStoreRejected",
    "VectorStoreUnavailable",
    "non_retryable_types",
]


class SynclineError(Exception):
    """Base of every error that Syncline raises on purpose.

    `problem` (what happened to what) and `fix` are parts of the message; other fields contain its names.
    """

    problem: str
    fix: str | None = None
    """The fix in a sentence; None if the error knows none."""

    retryable: ClassVar[bool] = False
    benign: ClassVar[bool] = False
    """Whether it belongs to normal operation, such as a rolling deployment or a mistyped name. Its category
    in Temporal is BENIGN, so the SDK excludes it from failure metrics that alerts use."""
    retry_after_seconds: float | None = None
    """Delay before the next retry, if known."""

    def __init__(self, problem: str = "", *, fix: str | None = None) -> None:
        self.problem = problem
        if fix is not None:
            self.fix = fix
        super().__init__(problem if fix is None else f"{problem} {fix}")


class VectorStoreError(SynclineError):
    """The vector store failed. `store` is its config key.

    `of_request`: another request, a smaller one or one for other points, may pass.
    """

    def __init__(self, store: str, problem: str, *, of_request: bool = False) -> None:
        self.store, self.of_request = store, of_request
        super().__init__(f"Vector store '{store}': {problem}")
        self.problem = problem


class VectorStoreUnavailable(VectorStoreError):
    """The vector store cannot be reached or cannot serve now. `until`: end of the pause that it asked for."""

    retryable = True

    def __init__(
        self, store: str, problem: str, *, of_request: bool = False, until: datetime | None = None
    ) -> None:
        super().__init__(store, problem, of_request=of_request)
        self.until = until


class VectorStoreRejected(VectorStoreError):
    """The vector store rejected the request.

    `all_points`: it would reject any others too, as without the right to write. `points`: it rejected these,
    and has written all others of the call.
    """

    def __init__(
        self,
        store: str,
        problem: str,
        *,
        of_request: bool = False,
        all_points: bool = False,
        points: "Mapping[UUID, VectorStoreRejected] | None" = None,
    ) -> None:
        super().__init__(store, problem, of_request=of_request)
        self.all_points, self.points = all_points, points or {}


class EmbeddingError(SynclineError):
    """The embedding service failed. `service` names it, without credentials."""

    unanswered = False
    """Whether a request was sent and never answered: it may have been carried out, and be charged."""

    def __init__(self, service: str, problem: str) -> None:
        self.service = service
        super().__init__(f"Embedding service '{service}': {problem}")
        self.problem = problem


class EmbeddingUnavailable(EmbeddingError):
    """The embedding service cannot be reached or cannot serve now.

    `status`: its HTTP status, if it answered; `until`: the end of the pause that it asked for.
    """

    retryable = True

    def __init__(
        self,
        service: str,
        problem: str,
        *,
        status: int | None = None,
        until: datetime | None = None,
        unanswered: bool = False,
    ) -> None:
        super().__init__(service, problem)
        self.status, self.until, self.unanswered = status, until, unanswered


class EmbeddingBudgetSpent(EmbeddingError):
    """The tokens of a day are used up: nothing was sent, and nothing is wrong with the service.

    `scope` is `graph` or `service`, by whose budget; `retry_at` is when the next day begins.
    """

    retryable = True

    def __init__(
        self, service: str, *, scope: str, whose: str, used: int, budget: int, retry_at: datetime, fix: str
    ) -> None:
        self.scope, self.used, self.budget, self.retry_at = scope, used, budget, retry_at
        super().__init__(
            service,
            f"nothing was sent: {whose} has used {used:,} of its {counted(budget, 'token')} for today. Texts "
            f"wait until {retry_at:%Y-%m-%d %H:%M} UTC, or until the budget is raised: {fix}.",
        )


class EmbeddingRejected(EmbeddingError):
    """The embedding service rejected the request."""


class EmbeddingDiffers(EmbeddingError):
    """A worker's settings would make other vectors than those that the graph has: nothing was sent.

    `found` is what the graph's vectors are made with, `mine` what this worker would make them with. Another
    worker may have the right settings.
    """

    retryable = True

    def __init__(
        self,
        service: str,
        graph: str,
        *,
        found: str,
        mine: str,
        settings: Sequence[str],
        second: bool = False,
    ) -> None:
        """`second`: these are the vectors of the model that the graph changes to."""
        self.graph, self.found, self.mine, self.second = graph, found, mine, second
        if second:
            super().__init__(
                service,
                f"no second vectors are written: those of graph {shown(graph)} are made with {found}, and "
                f"this worker would make them with {mine}. Give it that service too, by "
                "SYNCLINE_SECOND_EMBEDDING and the settings beside it; or end the change: "
                f"`syncline embedding drop {graph}`.",
            )
            return
        super().__init__(
            service,
            f"nothing is written: the vectors of graph {shown(graph)} are made with {found}, and this worker "
            f"would make them with {mine}. Correct {' and '.join(settings)} of this worker; or change the "
            f"graph: `syncline graph set {graph} --embedding {service}`.",
        )


class ProviderMisbehaved(SynclineError):
    """A provider broke its contract and was contained. `trouble` is a keyword for how, `do` the fix."""

    def __init__(self, provider_id: str, *, distribution: str, trouble: str, did: str, do: str) -> None:
        self.provider_id, self.distribution, self.trouble = provider_id, distribution, trouble
        super().__init__(f"Provider '{provider_id}' of distribution '{distribution}' {did}.", fix=do)


class ProviderBlocked(ProviderMisbehaved):
    """A provider blocks the event loop of its thread."""

    retryable = True


class ProviderFaulty(ProviderMisbehaved):
    """A provider's cycle raised what only its author can mend; the cause is the exception."""


class ProviderNotReady(ProviderMisbehaved):
    """A provider's `initialize` failed, or waits for its next attempt."""

    retryable = True


class ProviderGone(SynclineError):
    """This worker lacks the provider that the graph needs; another worker may have it."""

    retryable = True
    benign = True

    def __init__(self, graph: str, provider_id: str) -> None:
        self.graph, self.provider_id = graph, provider_id
        needed = f"Graph '{graph}' needs provider '{provider_id}', which is not installed in this worker"
        super().__init__(f"{needed}.", fix="The next attempt may run in a worker that has it.")


class ConfigurationError(SynclineError):
    """A declaration is wrong; a retry cannot help."""


class SettingsInvalid(ConfigurationError):
    """A setting is missing or malformed."""


class StoreNotConfigured(ConfigurationError):
    """A graph refers to a store key that no setting defines."""

    def __init__(self, *, role: str, key: str, known: Sequence[str]) -> None:
        self.role, self.key, self.known = role, key, tuple(known)
        choices = ", ".join(sorted(known)) or "none are configured"
        super().__init__(
            f"{role} store '{key}' is not configured (known: {choices}).",
            fix="Define it in SYNCLINE_STORES (Postgres) or SYNCLINE_QDRANTS, or clear the graph's "
            "reference.",
        )


class GraphNotFound(ConfigurationError):
    """No graph has this slug or id."""

    benign = True

    def __init__(self, reference: str | None) -> None:
        self.reference = reference
        problem, fix = (
            f"No graph has the slug or id {shown(reference)}.",
            "`syncline graph list` shows those that exist.",
        )
        if reference is None:
            problem = "No graph was named, and no graph is the default graph."
            fix = "Name a graph, or set is_default on one."
        super().__init__(problem, fix=fix)


class GraphInvalid(ConfigurationError):
    """A graph record breaks a rule."""

    def __init__(self, graph: str, field: str, problem: str) -> None:
        self.graph, self.field = graph, field
        super().__init__(f"Graph {shown(graph)}, {path_shown(field)}: {problem}")
        self.problem = problem


class CompositionInvalid(ConfigurationError):
    """A graph's composition breaks its model. `key` is the dotted path of the offending key."""

    def __init__(self, graph: str, key: str, problem: str) -> None:
        self.graph, self.key = graph, key
        super().__init__(f"Graph {shown(graph)}: composition key '{path_shown(key)}' is invalid: {problem}")
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class MapProblem:
    """One problem of a map document. `path` leads to the key, such as tables.facts.columns.uri."""

    line: int
    path: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"line {self.line}{self.path and f', {self.path}'}: {self.problem}. {self.fix}"


class MapInvalid(ConfigurationError):
    """A map document breaks its model, or contradicts itself.

    `problems` has all that could be found, in the order of the text; the message has the first ones.
    """

    _MOST: ClassVar[int] = 30

    def __init__(self, source: str, problems: Sequence[MapProblem], *, fix: str | None = None) -> None:
        self.source, self.problems = source, tuple(problems)
        listed = "".join(f"\n  {problem}" for problem in self.problems[: self._MOST])
        more = len(self.problems) - self._MOST
        said = f"{source} is no valid map:{listed}" + (f"\n  and {more} more" if more > 0 else "")
        super().__init__(said, fix=fix)


class MapNotFound(ConfigurationError):
    """No map of this name, or no such version of it, is stored. `newest` is the version there is, if any."""

    benign = True

    def __init__(
        self, name: str, version: int | None = None, *, newest: int | None = None, known: Sequence[str] = ()
    ) -> None:
        self.name, self.version, self.newest, self.known = name, version, newest, tuple(known)
        if newest is not None:
            super().__init__(
                f"Map {shown(name)} has no version {version}; its newest is {newest}.",
                fix=f"`syncline map history {name}` lists them.",
            )
            return
        stored = ", ".join(known) or "none"
        super().__init__(
            f"No map {shown(name)} is stored (stored: {stored}).", fix="`syncline map put FILE` stores one."
        )


class TenantInvalid(ConfigurationError):
    """A composition gives a map no tenant, one of another type, or one that it has no column for."""

    def __init__(self, map_name: str, problem: str, fix: str) -> None:
        self.map, self.problem = map_name, problem
        super().__init__(f"Map {shown(map_name)}: {problem}.", fix=fix)


class ProviderDuplicate(ConfigurationError):
    """Two distributions contribute one provider id."""

    def __init__(self, provider_id: str, *, kind: str, first: str, second: str) -> None:
        self.provider_id, self.kind, self.first, self.second = provider_id, kind, first, second
        super().__init__(
            f"{kind} provider '{provider_id}' is contributed by both '{first}' and '{second}'.",
            fix=f"Uninstall one of them; '{first}' stays in force until then.",
        )


class ProviderInvalid(ConfigurationError):
    """A contributed object is not a provider."""

    def __init__(self, name: str, *, distribution: str, problem: str) -> None:
        self.name, self.distribution = name, distribution
        super().__init__(f"Entry point '{name}' of distribution '{distribution}' is not usable: {problem}")
        self.problem = problem


class ProviderMissing(ConfigurationError):
    """The composition says `on_missing: fail`, and no worker can run the provider; `why` is a sentence."""

    def __init__(self, graph: str, provider_id: str, *, why: str) -> None:
        self.graph, self.provider_id = graph, provider_id
        super().__init__(
            f"Graph '{graph}' names provider '{provider_id}' with on_missing 'fail'. {why}",
            fix="Install the plugin, or restart the workers in which it is blocked, or choose 'hold' or "
            "'fallback'.",
        )


class CompositionChanged(ConfigurationError):
    """The graph's provider changed between resolution and cycle of a run."""

    benign = True

    def __init__(self, graph: str, *, resolved: str, declared: str | None) -> None:
        self.graph, self.resolved, self.declared = graph, resolved, declared
        what = f"Graph '{graph}' was resolved to provider '{resolved}', but its composition has changed"
        super().__init__(
            f"{what} to {(declared and repr(declared)) or 'none'} since.", fix="The next run will use it."
        )


class ShadowInvalid(ConfigurationError):
    """A graph has no shadow, or none that can be run or promoted now."""

    benign = True

    def __init__(self, graph: str, problem: str) -> None:
        self.graph = graph
        super().__init__(f"Shadow of graph '{graph}': {problem}.")
        self.problem = problem


class EmbeddingChangeRefused(ConfigurationError):
    """A step of changing a graph's embedding cannot be done now, and nothing was. `action`: the step."""

    benign = True

    def __init__(self, graph: str, action: str, problem: str, *, fix: str) -> None:
        self.graph, self.action = graph, action
        super().__init__(f"Embedding of graph '{graph}', {action}: {problem}.", fix=fix)
        self.problem = problem


class RebuildRefused(ConfigurationError):
    """A step of rebuilding a graph cannot be done now, and nothing was. `action`: the step."""

    benign = True

    def __init__(self, graph: str, action: str, problem: str, *, fix: str) -> None:
        self.graph, self.action = graph, action
        super().__init__(f"Rebuild of graph '{graph}', {action}: {problem}.", fix=fix)
        self.problem = problem


class OperationRefused(ConfigurationError):
    """The worker does not serve the operation that an operator started: SYNCLINE_OPERATIONS."""

    benign = True

    def __init__(self, workflow: str, *, served: str) -> None:
        self.workflow, self.served = workflow, served
        does = "serves no operations" if served == "none" else "serves only operations that change nothing"
        super().__init__(
            f"{workflow} was refused: this worker {does} (SYNCLINE_OPERATIONS={served}). "
            "Nothing was changed.",
            fix="Use the task queue of other workers, or change the setting on all workers.",
        )


class TakeoverRefused(ConfigurationError):
    """Cycles have applied the whole map of a graph: there is nothing to take over."""

    benign = True

    def __init__(self, graph: str) -> None:
        self.graph = graph
        super().__init__(
            f"Graph '{graph}' has been synced: its cycles have applied the whole map.",
            fix=f"`syncline verify {graph}` compares it, and `--repair` mends it.",
        )


class InputInvalid(ConfigurationError):
    """The input of a workflow breaks its model."""

    benign = True


class TokenRefused(ConfigurationError):
    """A token is none, or of another database or history than a graph reads."""

    benign = True

    def __init__(self, graph: str, problem: str, fix: str) -> None:
        self.graph = graph
        super().__init__(f"Graph {shown(graph)}: {problem}.", fix=fix)


class SchemaMismatch(ConfigurationError):
    """Tables of a graph's schema do not match its table map. `problems` has one sentence per mismatch."""

    def __init__(self, *problems: str, heading: str | None = None) -> None:
        self.problems = problems
        listed = "\n".join(problems if heading is None else [f"  - {problem}" for problem in problems])
        super().__init__(listed if heading is None else f"{heading}:\n{listed}")


class ScheduleNotFound(ConfigurationError):
    """No graph's Schedule has this name."""

    def __init__(self, slug: str, schedule_id: str) -> None:
        self.slug, self.schedule_id = slug, schedule_id
        super().__init__(
            f"There is no Schedule {shown(schedule_id)}.",
            fix="`syncline schedule list` shows those that exist; a graph that is not archived gets its own "
            "from `syncline schedule reconcile`.",
        )


class ScheduleForeign(ConfigurationError):
    """A Schedule with a graph's Schedule id starts another workflow, or uses another task queue."""

    def __init__(self, schedule_id: str, *, workflow: str, task_queue: str) -> None:
        self.schedule_id, self.workflow, self.task_queue = schedule_id, workflow, task_queue
        super().__init__(
            f"Schedule '{schedule_id}' starts {workflow} on task queue '{task_queue}': it was not created "
            "by this deployment and is not changed.",
            fix="If it is not needed, delete it "
            f"(`temporal schedule delete --schedule-id {schedule_id}`); the graph then gets its own.",
        )


class SchedulePaused(ConfigurationError):
    """A Schedule is paused because its graph is."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        super().__init__(
            f"The Schedule of graph '{slug}' is paused because the graph is.",
            fix=f"Resume the graph: `syncline graph resume {slug}`.",
        )


class SampleInvalid(ConfigurationError):
    """Sample data is not what its loader expects."""


class DevStackError(ConfigurationError):
    """The development stack cannot start as declared."""


class StoreName(str):
    """The config key of a Postgres store, which also says where that is: errors by this name do, too."""

    __slots__ = ("place",)

    place: str
    """Host and database, such as db.example/shop: no user, and no password."""

    def __new__(cls, name: str, place: str) -> Self:
        """Return the key `name`, of the store at `place`."""
        self = super().__new__(cls, name)
        self.place = place
        return self


class StoreError(SynclineError):
    """A Postgres store failed. `store` is its config key, `sqlstate` the SQLSTATE, if Postgres sent one.

    If the key is a `StoreName`, the message says which database it is.

    `problem` contains no row values. `said` is the full text from Postgres, kept only in the engine state of
    the graph-db: it is in no message. `by_code`: raised by a trigger or a function. `everywhere`: the rows of
    a batch were tried one by one, and all of them failed this way.
    """

    def __init__(
        self,
        store: str,
        problem: str,
        *,
        sqlstate: str | None = None,
        constraint: str | None = None,
        said: str | None = None,
        by_code: bool = False,
    ) -> None:
        self.store, self.sqlstate = store, sqlstate
        self.everywhere = False
        self.constraint = constraint
        self.said = problem if said is None else said
        self.by_code = by_code
        code = f" [SQLSTATE {sqlstate}]" if sqlstate else ""
        place = f" ({store.place})" if isinstance(store, StoreName) else ""
        super().__init__(f"Postgres store '{store}'{place}{code}: {problem}")
        self.problem = problem


class StoreUnavailable(StoreError):
    """The store cannot be reached or cannot serve now."""

    retryable = True


class StatementOutdated(StoreUnavailable):
    """A prepared statement no longer fits its tables; a new connection prepares it again."""

    benign = True

    def __init__(self, store: str, *, sqlstate: str | None = None) -> None:
        problem = "a table has changed since its statements were prepared; a new connection prepares them"
        super().__init__(store, problem, sqlstate=sqlstate)


class StoreUnusable(StoreError):
    """This process cannot log in to the store: its settings are wrong. Another worker's may be correct."""

    retryable = True
    retry_after_seconds = 5.0


class PoolerUnsupported(StoreUnusable):
    """A pooler between worker and store gives every transaction another session, so nothing was done."""

    fix = (
        "Set it to session pooling (PgBouncer: pool_mode = session), or use the port of the Postgres server "
        "in the store's connection string"
    )

    def __init__(self, store: str) -> None:
        super().__init__(store, f"connected through a pooler in transaction or statement mode. {self.fix}.")


class StoreRejected(StoreError):
    """Postgres rejected the statement."""


class RowsFiltered(StoreRejected):
    """Row-level security may hide rows from this role, so Postgres raised. A hidden row is not deleted."""


class TemporalUnavailable(SynclineError):
    """The Temporal server cannot be reached, or refuses access."""

    retryable = True

    def __init__(self, address: str, namespace: str, problem: str) -> None:
        self.address, self.namespace = address, namespace
        super().__init__(
            f"Temporal at {address}, namespace '{namespace}': {problem}.",
            fix="Check TEMPORAL_ADDRESS, _NAMESPACE, _API_KEY, _TLS_* and _PROFILE.",
        )
        self.problem = problem


class NoWorker(SynclineError):
    """No worker that accepts new runs polls the task queue, so a new run would wait forever.

    `others` are the versions of workers that poll it but are not the current version. `last_poll`: the
    sentence about one that did until lately.
    """

    def __init__(
        self,
        task_queue: str,
        namespace: str,
        *,
        others: Sequence[str | None] = (),
        last_poll: str | None = None,
    ) -> None:
        self.task_queue, self.namespace = task_queue, namespace
        where = f"task queue '{task_queue}' of namespace '{namespace}'"
        problem, fix = f"No worker polls {where}", "Start one: `syncline worker`."
        if others:
            version = next(filter(None, others), None)
            deployment, _, build = (version or "").partition(":")
            which = f"--deployment-name {deployment} --build-id {build}" if deployment else "--unversioned"
            versions = ", ".join(sorted({other or "unversioned" for other in others}))
            problem = f"No worker of the current version polls {where}; those that do: {versions}"
            fix = (
                "Start a worker of the current version, or make another one current: "
                f"`temporal worker deployment set-current-version {which}`."
            )
        elif last_poll is not None:
            problem = last_poll.removesuffix(".")
        super().__init__(f"{problem}.", fix=fix)
        self.problem = problem


class RunFailed(SynclineError):
    """A run that an operator started failed, was stopped, or did not end in time."""

    def __init__(self, workflow_id: str, problem: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(problem)


class QuestionUnanswered(SynclineError):
    """No worker answered a query of a run in time."""

    def __init__(self, workflow_id: str, problem: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"Run {workflow_id}: {problem}")
        self.problem = problem


class RunNotFound(SynclineError):
    """Temporal keeps no run of this graph. `unasked`: why no worker could say whether it has a record."""

    def __init__(self, slug: str, *, unasked: str | None = None) -> None:
        self.slug = slug
        record = "" if unasked is None else f" Whether it has a record was not asked: {unasked}"
        super().__init__(
            f"Temporal keeps no run of graph {shown(slug)}; `syncline status` lists all graphs.{record}"
        )


class AdoptionBlocked(SynclineError):
    """Installing or removing capture did not get a table's lock. `holders`: the sessions that had it."""

    retryable = True

    def __init__(self, step: str, *, holders: Sequence[str], attempts: int, seconds: float) -> None:
        self.step, self.holders, self.attempts, self.seconds = step, tuple(holders), attempts, seconds
        by = "; ".join(holders) or "a session that has ended"
        times = "once" if attempts == 1 else f"{attempts} times"
        waited = f"It waited for its lock {times}, {seconds:g} s each; last held by {by}"
        fix = "Nothing of this step was done; run it again when these sessions have ended."
        super().__init__(f"Not done: {step} {waited}.", fix=fix)


class SchemaMoved(SynclineError):
    """A promotion swapped a schema of the graph-db after the graph's record was read."""

    retryable = True
    benign = True

    def __init__(self, graph: str, schema: str, *, prefix: str, expected: str) -> None:
        self.graph, self.schema, self.prefix, self.expected = graph, schema, prefix, expected
        slug = graph.partition("/")[0]
        super().__init__(
            f"Schema '{schema}' belongs to the collections with prefix '{prefix}', but the record of graph "
            f"'{graph}' was read with '{expected}': its shadow is being promoted.",
            fix="The next attempt reads the record again; "
            f"`syncline provider promote {slug}` finishes an interrupted promotion.",
        )


class CycleBusy(SynclineError):
    """An earlier attempt of the same run still holds the graph."""

    retryable = True
    retry_after_seconds: float | None = 2.0
    benign = True

    def __init__(self, graph: str, run_id: str, *, pid: int | None = None, role: str | None = None) -> None:
        """Take the session that holds it, and its role if that is not the worker's own."""
        self.graph, self.run_id, self.pid, self.role = graph, run_id, pid, role
        session = "" if pid is None else f", pid {pid} of the graph-db"
        then = "the next attempt takes over"
        if role is not None:
            # No worker can terminate it, so it is retried at the growing intervals of the retry policy.
            self.retry_after_seconds = None
            then = (
                f"it is a session of role '{role}', which the worker's role may not terminate; if it is not "
                f"one of your workers, terminate it: SELECT pg_terminate_backend({pid})"
            )
        held = f"Graph '{graph}' is still held by an earlier attempt of run {run_id}{session}"
        super().__init__(f"{held}; {then}.")


class LoadBlocked(SynclineError):
    """Another session holds the lock that lanes of a graph's loads share. `pids`: those sessions."""

    retryable = True

    def __init__(self, graph: str, *, holders: Sequence[str], pids: Sequence[int], seconds: float) -> None:
        self.graph, self.holders, self.pids = graph, tuple(holders), tuple(pids)
        end = "ROLLBACK PREPARED with its gid of pg_prepared_xacts"
        if pids:
            end = f"SELECT {', '.join(f'pg_terminate_backend({pid})' for pid in pids)}"
        super().__init__(
            f"Graph '{graph}' has waited {seconds:.0f} s for the lock that lanes of its loads share, and "
            f"applies nothing meanwhile. It is held by {'; '.join(holders)}.",
            fix=f"If that is none of your workers, terminate it: {end}.",
        )


class CycleFenced(SynclineError):
    """A later cycle took the graph over while this one was paused; this one has written nothing since."""

    benign = True

    def __init__(self, graph: str, fence: int) -> None:
        self.graph, self.fence = graph, fence
        what = f"Graph '{graph}': a later cycle has taken over (fence {fence} is no longer current)"
        super().__init__(
            f"{what}.", fix="Nothing was lost: the later cycle continues from the last committed batch."
        )


def non_retryable_types() -> list[str]:
    """Return the class names that a Temporal retry policy must not retry."""
    found: list[str] = []
    pending: list[type[SynclineError]] = [SynclineError]
    while pending:
        cls = pending.pop()
        pending.extend(cls.__subclasses__())
        if not cls.retryable and cls not in (SynclineError, StoreError, VectorStoreError, EmbeddingError):
            found.append(cls.__name__)
    return sorted(found)
