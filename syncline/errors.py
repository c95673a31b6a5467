"""The error hierarchy. Each message names the thing and the fix; each class says if a retry can help.

    SynclineError
    ├── ConfigurationError            not retryable: someone has to change something
    │   ├── SettingsInvalid           a SYNCLINE_* setting is missing or malformed
    │   ├── StoreNotConfigured        a graph refers to a store key that no setting defines
    │   ├── GraphNotFound             no graph has this slug or id
    │   ├── GraphInvalid              a graph record breaks a rule (slug, schema, prefix, …)
    │   ├── CompositionInvalid        a graph's composition breaks its model
    │   ├── ProviderDuplicate         two distributions contribute one provider id
    │   ├── ProviderInvalid           a contributed object is not a provider
    │   ├── ProviderMissing           `on_missing: fail`, and no worker can run the provider
    │   ├── CompositionChanged        the graph's provider changed while a run was on its way
    │   ├── ShadowInvalid             a graph has no shadow, or not one that can be run or promoted
    │   ├── OperationRefused          an operator asked a worker for what it does not serve
    │   ├── InputInvalid              the input of a workflow, as someone typed it, breaks its model
    │   ├── SchemaMismatch            tables of a graph's schema are not what its table map says
    │   ├── ScheduleNotFound          no graph's Schedule has this name
    │   ├── ScheduleForeign           a Schedule of a graph's name belongs to somebody else
    │   ├── SchedulePaused            a Schedule is paused because its graph is
    │   ├── SampleInvalid             sample data is not what its loader expects
    │   └── DevStackError             the development stack cannot start as declared
    ├── StoreError                    a store answered, or did not
    │   ├── StoreUnavailable          retryable: connection, timeout, shutdown, too many clients
    │   │   └── StatementOutdated     retryable: a statement was prepared for a table that has changed
    │   ├── StoreUnusable             retryable: this process cannot log in; another one may be set right
    │   │   └── PoolerUnsupported     retryable: a pooler in between keeps no sessions
    │   └── StoreRejected             not retryable: the statement itself was refused (carries SQLSTATE)
    │       └── RowsFiltered          not retryable: a policy may hide rows from the role that asks for them
    ├── VectorStoreError
    │   ├── VectorStoreUnavailable    retryable
    │   └── VectorStoreRejected       not retryable (dimension, bad request, credentials)
    ├── EmbeddingError
    │   ├── EmbeddingUnavailable      retryable
    │   └── EmbeddingRejected         not retryable
    ├── ProviderMisbehaved            not retryable: a cycle did what none may; it was contained
    │   ├── ProviderBlocked           retryable: the provider keeps its event loop from running
    │   └── ProviderNotReady          retryable: its `initialize` failed, or is not to be tried again yet
    ├── ProviderGone                  retryable: this worker lacks the provider; another one may have it
    ├── TemporalUnavailable           retryable: the Temporal server cannot be reached, or turns us away
    ├── NoWorker                      not retryable: nobody polls the task queue that a run would need
    ├── RunFailed                     not retryable: a run that was asked for by hand did not end well
    ├── QuestionUnanswered            not retryable: a run was asked for its state, and no worker answered
    ├── RunNotFound                   not retryable: Temporal keeps no run of this graph
    ├── AdoptionBlocked               retryable: a table that is to be captured was never free for it
    ├── SchemaMoved                   retryable: a schema holds what another record than this one says
    ├── CycleBusy                     retryable: an earlier attempt of this very run still holds the graph
    └── CycleFenced                   not retryable: a later cycle took the graph over; nothing was written

Retryability is declared here and translated for Temporal in `activities/`. Messages never carry credentials.
One module because it is one tree, drawn above.
"""

from collections.abc import Sequence
from typing import ClassVar

from syncline.quoting import path_shown, shown

__all__ = [
    "EmbeddingError",
    "EmbeddingRejected",
    "EmbeddingUnavailable",
    "ProviderBlocked",
    "ProviderGone",
    "ProviderMisbehaved",
    "ProviderNotReady",
    "SynclineError",
    "VectorStoreError",
    "VectorStoreRejected",
    "VectorStoreUnavailable",
]


class SynclineError(Exception):
    """Base of every error that Syncline raises on purpose: what happened to what, and what mends it.

    `problem` and `fix` are parts of the message, or all of it; other fields have the names in it.
    """

    problem: str
    fix: str | None = None
    """What mends it, in a sentence, where the error knows one."""

    retryable: ClassVar[bool] = False
    benign: ClassVar[bool] = False
    """Whether it belongs to normal operation: a rolling deployment, a mistyped name. To Temporal it is
    BENIGN, so the SDK does not count it among the failures that somebody may be paged for."""
    retry_after_seconds: float | None = None
    """How long a retry has to wait to make sense, where that is known."""

    def __init__(self, problem: str = "", *, fix: str | None = None) -> None:
        self.problem = problem
        if fix is not None:
            self.fix = fix
        super().__init__(problem if fix is None else f"{problem} {fix}")


class VectorStoreError(SynclineError):
    """The vector store failed. `store` is its config key."""

    def __init__(self, store: str, problem: str) -> None:
        self.store = store
        super().__init__(f"Vector store '{store}': {problem}")
        self.problem = problem


class VectorStoreUnavailable(VectorStoreError):
    """The vector store cannot be reached or cannot serve now."""

    retryable = True


class VectorStoreRejected(VectorStoreError):
    """The vector store refused the request itself."""


class EmbeddingError(SynclineError):
    """The embedding service failed. `service` names it, without credentials."""

    def __init__(self, service: str, problem: str) -> None:
        self.service = service
        super().__init__(f"Embedding service '{service}': {problem}")
        self.problem = problem


class EmbeddingUnavailable(EmbeddingError):
    """The embedding service cannot be reached or cannot serve now."""

    retryable = True


class EmbeddingRejected(EmbeddingError):
    """The embedding service refused the request itself."""


class ProviderMisbehaved(SynclineError):
    """A provider did what it must not, and was contained. `trouble` is a word for it, `do` the way out."""

    def __init__(self, provider_id: str, *, distribution: str, trouble: str, did: str, do: str) -> None:
        self.provider_id, self.distribution, self.trouble = provider_id, distribution, trouble
        super().__init__(f"Provider '{provider_id}' of distribution '{distribution}' {did}.", fix=do)


class ProviderBlocked(ProviderMisbehaved):
    """A provider keeps the event loop of its room from running."""

    retryable = True


class ProviderNotReady(ProviderMisbehaved):
    """A provider's `initialize` failed, or is not to be tried again yet."""

    retryable = True


class ProviderGone(SynclineError):
    """This worker lacks the provider that the graph needs; another one may have it."""

    retryable = True
    benign = True

    def __init__(self, graph: str, provider_id: str) -> None:
        self.graph, self.provider_id = graph, provider_id
        needed = f"Graph '{graph}' needs provider '{provider_id}', which is not installed in this worker"
        super().__init__(f"{needed}.", fix="The next attempt may meet a worker that has it.")


class ConfigurationError(SynclineError):
    """Something declared is wrong; retrying cannot help."""


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
            problem = "No graph was named and no graph is marked as default."
            fix = "Name one, or set is_default on a graph."
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
    """The graph's provider changed while a run was on its way."""

    benign = True

    def __init__(self, graph: str, *, resolved: str, declared: str | None) -> None:
        self.graph, self.resolved, self.declared = graph, resolved, declared
        what = f"Graph '{graph}' was resolved to provider '{resolved}', and its composition has changed"
        super().__init__(
            f"{what} to {(declared and repr(declared)) or 'none'} since.", fix="The next run follows it."
        )


class ShadowInvalid(ConfigurationError):
    """A graph has no shadow, or not one that can be run or promoted as it stands."""

    benign = True

    def __init__(self, graph: str, problem: str) -> None:
        self.graph = graph
        super().__init__(f"Shadow of graph '{graph}': {problem}.")
        self.problem = problem


class OperationRefused(ConfigurationError):
    """An operator asked for what this worker does not do: SYNCLINE_OPERATIONS."""

    benign = True

    def __init__(self, workflow: str, *, served: str) -> None:
        self.workflow, self.served = workflow, served
        does = "serves no operations" if served == "none" else "serves operations that change nothing alone"
        super().__init__(
            f"{workflow} was refused: this worker {does} (SYNCLINE_OPERATIONS={served}). "
            "Nothing was changed.",
            fix="Ask workers of another task queue, or change the setting of all of them.",
        )


class InputInvalid(ConfigurationError):
    """The input of a workflow breaks its model."""

    benign = True


class SchemaMismatch(ConfigurationError):
    """Tables of a graph's schema are not what its table map says. `problems` are sentences, one for each."""

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
    """A Schedule of a graph's name starts another workflow, or starts it for another task queue."""

    def __init__(self, schedule_id: str, *, workflow: str, task_queue: str) -> None:
        self.schedule_id, self.workflow, self.task_queue = schedule_id, workflow, task_queue
        super().__init__(
            f"Schedule '{schedule_id}' starts {workflow} on task queue '{task_queue}', so it belongs to "
            "somebody else and is left alone.",
            fix="If nobody needs it, delete it "
            f"(`temporal schedule delete --schedule-id {schedule_id}`): then the graph gets its own.",
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


class StoreError(SynclineError):
    """A Postgres store failed. `store` is its config key, `sqlstate` what Postgres said, if it said.

    `problem` has no values of rows. `said` is all that Postgres said, for the engine's books in the graph-db
    alone: it is in no message. `by_code`: a trigger or a function raised it. `everywhere`: rows of a batch
    were tried one by one, and all that were tried failed so.
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
        super().__init__(f"Postgres store '{store}'{code}: {problem}")
        self.problem = problem


class StoreUnavailable(StoreError):
    """The store cannot be reached or cannot serve now."""

    retryable = True


class StatementOutdated(StoreUnavailable):
    """A prepared statement no longer fits its tables; a new connection prepares it again."""

    benign = True

    def __init__(self, store: str, *, sqlstate: str | None = None) -> None:
        problem = "a table has changed since this connection prepared its statements; a new one prepares them"
        super().__init__(store, problem, sqlstate=sqlstate)


class StoreUnusable(StoreError):
    """This process cannot log in to the store: its settings are wrong. Another worker's may be right."""

    retryable = True
    retry_after_seconds = 5.0


class PoolerUnsupported(StoreUnusable):
    """A pooler in between gives every transaction another session, so nothing was done."""

    fix = (
        "Have it pool sessions (PgBouncer: pool_mode = session), or name the port of the server itself in "
        "the store's connection string"
    )

    def __init__(self, store: str) -> None:
        super().__init__(store, f"a pooler in transaction or statement mode is in between. {self.fix}.")


class StoreRejected(StoreError):
    """The store refused the statement itself."""


class RowsFiltered(StoreRejected):
    """A policy may hide rows from the role that asks, so Postgres raised. Hidden is not gone."""


class TemporalUnavailable(SynclineError):
    """The Temporal server cannot be reached, or turns us away."""

    retryable = True

    def __init__(self, address: str, namespace: str, problem: str) -> None:
        self.address, self.namespace = address, namespace
        super().__init__(
            f"Temporal at {address}, namespace '{namespace}': {problem}.",
            fix="TEMPORAL_ADDRESS, _NAMESPACE, _API_KEY, _TLS_* and _PROFILE say where and how to connect.",
        )
        self.problem = problem


class NoWorker(SynclineError):
    """No worker that takes new runs polls the task queue, so a run that is asked for would wait for ever.

    `others` are the versions of workers that do poll it, and are not current.
    """

    def __init__(self, task_queue: str, namespace: str, *, others: Sequence[str | None] = ()) -> None:
        self.task_queue, self.namespace = task_queue, namespace
        where = f"task queue '{task_queue}' of namespace '{namespace}'"
        problem, fix = f"No worker polls {where}", "Start one: `python worker.py`."
        if others:
            version = next(filter(None, others), None)
            deployment, _, build = (version or "").partition(":")
            which = f"--deployment-name {deployment} --build-id {build}" if deployment else "--unversioned"
            told = ", ".join(sorted({other or "unversioned" for other in others}))
            problem = f"No worker that takes new runs polls {where}: only {told} do"
            fix = (
                "Start a worker of the current version, or make theirs current: "
                f"`temporal worker deployment set-current-version {which}`."
            )
        super().__init__(f"{problem}.", fix=fix)
        self.problem = problem


class RunFailed(SynclineError):
    """A run that was asked for by hand failed, was stopped, or did not end in time."""

    def __init__(self, workflow_id: str, problem: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(problem)


class QuestionUnanswered(SynclineError):
    """A run was asked for its state, and no worker answered in time."""

    def __init__(self, workflow_id: str, problem: str) -> None:
        self.workflow_id = workflow_id
        super().__init__(f"Run {workflow_id}: {problem}")
        self.problem = problem


class RunNotFound(SynclineError):
    """Temporal keeps no run of this graph."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        super().__init__(
            f"Temporal keeps no run of graph {shown(slug)}; `syncline status` lists those with one."
        )


class AdoptionBlocked(SynclineError):
    """A table that is to be captured, or no longer, was never free for it. `holders` are those who had it."""

    retryable = True

    def __init__(self, step: str, *, holders: Sequence[str], attempts: int, seconds: float) -> None:
        self.step, self.holders, self.attempts, self.seconds = step, tuple(holders), attempts, seconds
        by = "; ".join(holders) or "somebody who is gone by now"
        times = "once" if attempts == 1 else f"{attempts} times"
        waited = f"It waited for its lock {times}, {seconds:g} s each, and the last time it was held by {by}"
        fix = "Nothing of this step was done; run it again when they have ended."
        super().__init__(f"Not done: {step} {waited}.", fix=fix)


class SchemaMoved(SynclineError):
    """A promotion has swapped a schema of the graph-db, and the graph's record was read before that."""

    retryable = True
    benign = True

    def __init__(self, graph: str, schema: str, *, prefix: str, expected: str) -> None:
        self.graph, self.schema, self.prefix, self.expected = graph, schema, prefix, expected
        slug = graph.partition("/")[0]
        super().__init__(
            f"Schema '{schema}' belongs to the vectors under '{prefix}', and graph '{graph}' was read with "
            f"'{expected}': its shadow is being promoted.",
            fix="The next attempt reads the record again; "
            f"`syncline provider promote {slug}` finishes a promotion that was cut off.",
        )


class CycleBusy(SynclineError):
    """An earlier attempt of this very run still holds the graph."""

    retryable = True
    retry_after_seconds: float | None = 2.0
    benign = True

    def __init__(self, graph: str, run_id: str, *, pid: int | None = None, role: str | None = None) -> None:
        """Name the session that holds it, and its role if that is not the worker's own."""
        self.graph, self.run_id, self.pid, self.role = graph, run_id, pid, role
        who = "" if pid is None else f", pid {pid} of the graph-db"
        then = "the next attempt takes over"
        if role is not None:
            # Nothing of ours can end it, so it is not asked for all the time.
            self.retry_after_seconds = None
            then = (
                f"it is a session of role '{role}', which the worker's own may not end; if that is no worker "
                f"of yours, end it there: SELECT pg_terminate_backend({pid})"
            )
        super().__init__(f"Graph '{graph}' is still held by an earlier attempt of run {run_id}{who}; {then}.")


class CycleFenced(SynclineError):
    """A later cycle took the graph over while this one was away; nothing was written by it since."""

    benign = True

    def __init__(self, graph: str, fence: int) -> None:
        self.graph, self.fence = graph, fence
        what = f"Graph '{graph}': a later cycle has taken over (fence {fence} is no longer current)"
        super().__init__(
            f"{what}.", fix="Nothing was lost: the later cycle goes on from the last committed batch."
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
