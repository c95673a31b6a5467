"""The provider contract: the protocols of providers, the context of a cycle, and its results.

The contract is this module and `syncline.messages`; what else plugins import is in the API reference. One
module because it is one contract, which is imported from one place.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, Self, TypeVar, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, JsonValue

from syncline import names
from syncline.embeddings.service import EmbeddingService
from syncline.errors import EmbeddingError
from syncline.messages.base import GraphRef
from syncline.messages.sync import CycleProgress, LaneResult, SyncResult
from syncline.settings import Settings
from syncline.stores.collection_options import CollectionOptions
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import AS_IT_IS, VectorStore

__all__ = [
    "API_VERSION",
    "FACT_DECOMPOSITION_API_VERSION",
    "KINDS",
    "MUTED_SECONDS",
    "CycleBudget",
    "DecomposedFact",
    "EventLog",
    "FactDecompositionProvider",
    "GraphSchema",
    "GraphVectors",
    "Lanes",
    "Linger",
    "LoadingProvider",
    "Meter",
    "NoOptions",
    "NullMeter",
    "OtherKind",
    "PreparingProvider",
    "Provider",
    "ProviderKind",
    "ProviderServices",
    "RetryRules",
    "RunIdentity",
    "SourceText",
    "StoreRole",
    "SyncContext",
    "SyncProvider",
    "SyncResult",
    "options_model_of",
    "preparing",
]

API_VERSION = 1
"""The version of this contract. A provider declares the one it was written for."""

OptionsT = TypeVar("OptionsT", bound=BaseModel)

OtherKind = Literal["definition", "source_cache", "source_contribution", "dimensions", "relations"]
"""Kinds whose providers have the members of `Provider` only, until their consumers define a contract."""
ProviderKind = Literal["sync", "fact_decomposition"] | OtherKind
"""Kind of a provider, as named in a composition."""
KINDS: Final[tuple[ProviderKind, ...]] = ("sync", "fact_decomposition", *get_args(OtherKind))


StoreRole = Literal["write", "graph"]
"""Which of a graph's two databases a Postgres store is."""


class NoOptions(BaseModel):
    """Options model of a provider without options: any option is rejected by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EventLog(Protocol):
    """Structured log: an event and its fields. Implemented by structlog's bound logger."""

    def debug(self, event: str, **fields: object) -> object: ...
    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...
    def error(self, event: str, **fields: object) -> object: ...


class Meter(Protocol):
    """Metrics of the running worker. Names are snake_case; attributes are labels of low cardinality."""

    def count(self, name: str, value: int, **attributes: str) -> None:
        """Add `value` (>= 0) to the counter `name`."""

    def gauge(self, name: str, value: float, **attributes: str) -> None:
        """Set the gauge `name`."""

    def observe(self, name: str, value: float, **attributes: str) -> None:
        """Record `value` in the histogram `name`."""


class NullMeter:
    """A meter that records nothing: for use outside a worker."""

    def count(self, name: str, value: int, **attributes: str) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float, **attributes: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, **attributes: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """The Temporal run and attempt of a cycle. `run_id` is the same for every attempt."""

    workflow_id: str
    run_id: str
    attempt: int = 1
    provider: str = names.FALLBACK_PROVIDER
    """Id of the provider that runs the cycle."""
    provider_version: str | None = None


@dataclass(frozen=True, kw_only=True)
class CycleBudget:
    """Limits of one cycle."""

    batch_rows: int
    """Maximum rows of one committed batch."""
    seconds: float
    """Seconds after the start of the cycle at which to stop draining."""
    rows_per_second: int | None = None
    """How many rows to read from the write-db in a second, about; None: as many as it can."""


@dataclass(frozen=True, kw_only=True)
class RetryRules:
    """Delays before rejected rows and unavailable services are retried; each delay is twice the previous."""

    dead_letter_seconds: float = 60
    """From a row's first rejection to its first retry."""
    dead_letter_attempts: int = 5
    """Rejections after which a row is dead until an operator requests a retry."""
    vector_seconds: float = 5
    """From a failure of the vector store or embedding service to the next try, in a later cycle."""
    vector_longest_seconds: float = 300

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return those of a worker."""
        return cls(
            dead_letter_seconds=settings.dead_letter_seconds,
            dead_letter_attempts=settings.dead_letter_attempts,
            vector_seconds=settings.vector_retry_seconds,
        )

    def __post_init__(self) -> None:
        """Reject invalid values with ValueError."""
        if min(self.dead_letter_seconds, self.vector_seconds, self.vector_longest_seconds) < 0:
            raise ValueError("a delay cannot be negative")
        if self.dead_letter_attempts < 1:
            raise ValueError("a row is dead after at least one rejection")


@dataclass(frozen=True, kw_only=True)
class GraphSchema:
    """One graph's schema in one Postgres store. Connections come from the store's shared pool."""

    store: PostgresStore
    schema: str

    def with_floor(self) -> Self:
        """Return the same schema, over a pool with a floor of its own (`PostgresStore.with_floor`)."""
        return replace(self, store=self.store.with_floor())


@dataclass(frozen=True, kw_only=True)
class GraphVectors:
    """One graph's collections in one vector store: every collection name starts with `prefix`."""

    store: VectorStore
    prefix: str
    options: CollectionOptions = AS_IT_IS
    """Settings of its collections, by the graph's record."""
    generation: int = 1
    """Which generation of them: each model that the graph changes to makes a new one."""

    def collection(self, name: str) -> str:
        """Return the full collection name for `name`."""
        return names.physical_collection(self.prefix, name, self.generation)

    def alias(self, name: str) -> str:
        """Return what readers query, of whatever generation it is."""
        return names.live_alias(self.prefix, name)

    def of_generation(self, generation: int) -> "GraphVectors":
        """Return those of another generation."""
        return replace(self, generation=generation)


class Linger(Protocol):
    """Lets a cycle that has drained stay open for further changes. Its coroutines raise StoreError.

    While its writers are muted, the cycle looks for changes itself. What it may have missed at its end, it
    announces.
    """

    @property
    def seconds(self) -> float:
        """How long the cycle waits for the next change; one that changed less long ago may linger."""

    @property
    def longest(self) -> float:
        """How long it lingers in all."""

    def over(self) -> str | None:
        """Return why it is to end now; None while it may linger."""

    async def mute(self) -> bool:
        """Mute the writers for `MUTED_SECONDS`; False if it may not linger: then only `release`."""

    async def unmute(self) -> int:
        """Let writers notify again; return the transaction below which any that was muted began."""

    async def announce(self, below: int) -> None:
        """Notify, as a writer does, of changes by transactions below this one."""

    async def release(self) -> None:
        """Give the place to another cycle, if `mute` has taken one; nothing of it goes on afterwards."""


MUTED_SECONDS: Final = 4.0
"""How long a lingering cycle mutes its writers at a time: so late is what it misses if it is killed."""


class Lanes(Protocol):
    """Lets several lanes read the load of a large table, in ranges: one is the cycle's own."""

    @property
    def number(self) -> int:
        """How many lanes a load may have in all."""

    async def call(self) -> None:
        """Ask for the others, of this worker or of another: there are ranges. They may come late, or never.

        Raises nothing; asked again it does nothing.
        """


@dataclass(frozen=True, kw_only=True)
class SyncContext:
    """Everything that one cycle may use. Only the pools are shared with cycles of other graphs."""

    graph: GraphRef
    run: RunIdentity
    write: GraphSchema
    """The graph's schema in the write-db. Treat it as read-only."""
    target: GraphSchema
    """The graph's schema in the graph-db."""
    vectors: GraphVectors
    """The graph's collections, of the first generation: of a graph whose model has changed, the engine finds
    the present one in `target` (`syncline.engine.vectors.generations`)."""
    embedding: EmbeddingService
    budget: CycleBudget
    options: BaseModel
    """The composition's options, validated by the provider's `options_model`."""
    heartbeat: Callable[[CycleProgress], None]
    """Call it at least every few seconds of work; its argument is the progress that operators see."""
    log: EventLog
    meter: Meter
    retry: RetryRules = RetryRules()
    removal_share: float = 0.2
    """The part of a table's rows that may leave unasked because the write-db turned out not to have them,
    without a delete that was captured: as after a restore."""
    shadow: bool = False
    """Whether this is a shadow run: `target` and `vectors` are the shadow's; readers are not notified."""
    alone: bool = True
    """Whether no other graph reads `write`. If one does, what it has yet to read is unknown here."""
    may_embed: Callable[[Sequence[str]], Awaitable[EmbeddingError | None]] | None = None
    """Ask it before vectors are written, with the names of the embedding services that made those that are
    there: returns why they must not be, as when the graph's are made with other settings than this worker
    has. None without a control plane."""
    second_embedding: EmbeddingService | None = None
    """Another one that this worker offers: while a graph's model changes, its two generations need both."""
    embedding_of: Callable[[int, Sequence[str], bool], Awaitable[int | EmbeddingError]] | None = None
    """Asked like `may_embed`, which it replaces, for one generation, and whether that is the second: returns
    the place in `embeddings` of the service that its vectors are made with, or why none of them is."""
    run_is_over: Callable[[str], Awaitable[bool]] | None = None
    """Returns whether another run, by its id, has been closed long enough that no attempt of it can still be
    working; False if unknown. None outside a worker."""
    linger: Linger | None = None
    """May let the cycle stay open for further changes; None, as for plugins: it ends when it has drained."""
    lanes: Lanes | None = None
    """May let others take part in its loads; None, as for plugins: it loads alone."""

    @property
    def embeddings(self) -> Sequence[EmbeddingService]:
        """The services that this worker offers, `embedding` first."""
        return tuple(filter(None, (self.embedding, self.second_embedding)))

    def options_as(self, model: type[OptionsT]) -> OptionsT:
        """Return the options as `model`, or raise TypeError if they are of another model."""
        if not isinstance(self.options, model):
            raise TypeError(f"options are {type(self.options).__name__}, not {model.__name__}")
        return self.options


class ProviderServices(Protocol):
    """Services that a worker process shares with its providers: settings, pools, embedding service, meter.

    Implemented by `syncline.services.Services`. The worker closes them after the last provider.
    """

    @property
    def settings(self) -> Settings:
        """The settings of the process."""

    @property
    def meter(self) -> Meter:
        """The metrics of the process."""

    @property
    def embedding(self) -> EmbeddingService:
        """The embedding service."""

    @property
    def control(self) -> PostgresStore:
        """The database of the control plane."""

    def store(self, role: StoreRole, key: str | None) -> PostgresStore:
        """Return the Postgres store of a role by its key in the settings; None is the default store.

        Raise StoreNotConfigured for a key that no setting defines.
        """

    def vector_store(self, key: str | None) -> VectorStore:
        """Return the vector store by its key in the settings; None is the default store.

        Raise StoreNotConfigured for a key that no setting defines.
        """


@runtime_checkable
class Provider(Protocol):
    """Members common to providers of every kind. Attribute `kind` is the kind, `sync` if absent.

    A provider with `required = True` cannot be replaced: while no worker has it, its graphs are held, unless
    `on_missing` of their composition overrides this.

    One instance serves every graph of a worker process, concurrently. Register it under the entry point
    group `syncline.providers`; the value is the class or a function that returns an instance.
    """

    id: str
    """Stable name that compositions refer to, e.g. `acme-sync`."""
    version: str
    """The provider's own version, shown to operators."""
    api_version: int
    """Version of its kind's contract that it implements; for sync this is `API_VERSION`."""

    @abstractmethod
    async def initialize(self, services: ProviderServices) -> None:
        """Prepare resources shared by all graphs. Called before the first use in a worker process.

        Called again, on the same instance, where its event loop had to begin anew. A failed call is
        repeated after 1 s, then after twice as long as before, at most a minute.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release what `initialize` has. Called at shutdown, and before its event loop is replaced."""


@runtime_checkable
class SyncProvider(Provider, Protocol):
    """An engine that syncs a graph: subclass it, or implement its members.

    Attribute `schema_map` (`syncline.engine.SchemaMap`) declares the tables that it syncs. Without it
    `verify`, `explain` and `parked` use the built-in map, and report that. A provider with tables of its own
    also has `prepare` (`PreparingProvider`).
    """

    @abstractmethod
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        """Run one cycle. It must be resumable and end on cancellation."""


@runtime_checkable
class PreparingProvider(SyncProvider, Protocol):
    """A `SyncProvider` that makes tables of its own in the graph-db: `prepare` is optional."""

    @abstractmethod
    async def prepare(self, context: SyncContext) -> None:
        """Make what is missing in `context.target`, before the first cycle over that schema.

        Called before a worker process's first cycle of a graph, with the cycle's own context: for a shadow
        (`context.shadow`) the schema is new, and has the built-in tables alone. Called again after a failure,
        in other processes, for another version and for other options: so it must be idempotent, and cheap
        where nothing is missing (`CREATE TABLE IF NOT EXISTS`). It must not write to the write-db. It has the
        time limits of the cycle, which waits for it; what it raises fails the cycle, which is retried as
        ever. If `context.target.store.owner_role` is set, act as that role, which owns the schema.
        """


@runtime_checkable
class LoadingProvider(SyncProvider, Protocol):
    """A `SyncProvider` whose loads several lanes may read, over connections of several workers.

    The built-in engine is one. Cycles of plugins are given no `SyncContext.lanes`, so theirs is never called.
    """

    @abstractmethod
    async def load_ranges(self, context: SyncContext, *, lane: str, over: Callable[[], bool]) -> LaneResult:
        """Take part in the loads of a running cycle, whose run and attempt `context.run` is, until `over`.

        It must commit nothing once another attempt or run has the graph.
        """


def preparing(provider: SyncProvider) -> PreparingProvider | None:
    """Return the provider if it has something to prepare, else None."""
    return provider if isinstance(provider, PreparingProvider) else None


def options_model_of(provider: object) -> type[BaseModel]:
    """Return the provider's options model, `NoOptions` if it declares none; TypeError if it is no model."""
    model = getattr(provider, "options_model", NoOptions)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"options_model of provider {provider!r} is not a pydantic model class")
    return model


FACT_DECOMPOSITION_API_VERSION = 1
"""The version of this contract. A provider declares the one it was written for."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceText(_Part):
    """Input of a decomposition: one raw source, as text."""

    key: str
    """Id of the raw source in the write-db."""
    text: str
    title: str | None = None
    uri: str | None = None


class DecomposedFact(_Part):
    """One statement of the source, understandable without it."""

    content: str
    fact_type: str = "claim"
    snippet: str | None = None
    """Quotation from the source that states it."""
    metadata: dict[str, JsonValue] = {}


@runtime_checkable
class FactDecompositionProvider(Provider, Protocol):
    """Extracts facts from a text. Its `kind` is `fact_decomposition`."""

    kind: str

    @abstractmethod
    async def decompose(self, source: SourceText, options: BaseModel) -> tuple[DecomposedFact, ...]:
        """Return the facts of the source in the order of the text, possibly none.

        `options` are the composition's, validated by the provider's `options_model`. It must be stateless,
        safe for concurrent calls, and end on cancellation.
        """
