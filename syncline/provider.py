"""The provider contract: what a SyncProvider is, what it is given, and what it returns.

A plugin author needs this module and `syncline.messages` alone.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, JsonValue

from syncline import names
from syncline.embeddings.service import EmbeddingService
from syncline.messages.base import GraphRef
from syncline.messages.sync import CycleProgress, SyncResult
from syncline.settings import Settings
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import VectorStore

__all__ = [
    "API_VERSION",
    "FACT_DECOMPOSITION_API_VERSION",
    "KINDS",
    "CycleBudget",
    "DecomposedFact",
    "EventLog",
    "FactDecompositionProvider",
    "GraphSchema",
    "GraphVectors",
    "Meter",
    "NoOptions",
    "NullMeter",
    "OtherKind",
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
]

API_VERSION = 1
"""The version of this contract. A provider declares the one it was written for."""

OptionsT = TypeVar("OptionsT", bound=BaseModel)

OtherKind = Literal["definition", "source_cache", "source_contribution", "dimensions", "relations"]
"""Kinds whose providers have the members of `Provider`; their consumers will say what more they need."""
ProviderKind = Literal["sync", "fact_decomposition"] | OtherKind
"""What a provider is for, as a composition names it."""
KINDS: Final[tuple[ProviderKind, ...]] = ("sync", "fact_decomposition", *get_args(OtherKind))


StoreRole = Literal["write", "graph"]
"""Which of a graph's two databases a Postgres store is."""


class NoOptions(BaseModel):
    """Options model of a provider that takes none: any option is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EventLog(Protocol):
    """Structured log: an event and its fields. A structlog bound logger is one."""

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
    """Which Temporal run and attempt a cycle belongs to. `run_id` is the same for every attempt."""

    workflow_id: str
    run_id: str
    attempt: int = 1
    provider: str = names.FALLBACK_PROVIDER
    """Id of the provider that runs the cycle."""
    provider_version: str | None = None


@dataclass(frozen=True, kw_only=True)
class CycleBudget:
    """The bounds of one cycle."""

    batch_rows: int
    """Rows of one committed batch."""
    seconds: float
    """When to stop draining, in seconds after the cycle began."""


@dataclass(frozen=True, kw_only=True)
class RetryRules:
    """When what was refused or could not be reached is tried again; each wait is twice the one before."""

    dead_letter_seconds: float = 60
    """From a row's first failure to its first retry."""
    dead_letter_attempts: int = 5
    """Failures after which a row is dead until somebody asks for a retry."""
    vector_seconds: float = 5
    """From a failure of the vector store or the embedding service to the next try, in some later cycle."""
    vector_longest_seconds: float = 300

    def __post_init__(self) -> None:
        """Refuse what could not be waited for."""
        if min(self.dead_letter_seconds, self.vector_seconds, self.vector_longest_seconds) < 0:
            raise ValueError("a wait cannot be negative")
        if self.dead_letter_attempts < 1:
            raise ValueError("a row fails at least once before it is dead")


@dataclass(frozen=True, kw_only=True)
class GraphSchema:
    """One graph's schema in one Postgres store. Connections come from the store's shared pool."""

    store: PostgresStore
    schema: str


@dataclass(frozen=True, kw_only=True)
class GraphVectors:
    """One graph's collections in one vector store: every collection name starts with `prefix`."""

    store: VectorStore
    prefix: str

    def collection(self, name: str) -> str:
        """Return the full collection name for `name`."""
        return f"{self.prefix}{name}"


@dataclass(frozen=True, kw_only=True)
class SyncContext:
    """Everything one cycle may use. Nothing here is shared with a cycle of another graph but the pools."""

    graph: GraphRef
    run: RunIdentity
    write: GraphSchema
    """The graph's schema in the write-db. Treat it as read-only."""
    target: GraphSchema
    """The graph's schema in the graph-db."""
    vectors: GraphVectors
    embedding: EmbeddingService
    budget: CycleBudget
    options: BaseModel
    """The composition's options, validated by the provider's `options_model`."""
    heartbeat: Callable[[CycleProgress], None]
    """Call it at least every few seconds of work: it is also how progress becomes visible."""
    log: EventLog
    meter: Meter
    retry: RetryRules = RetryRules()
    shadow: bool = False
    """Whether this is a shadow run: `target` and `vectors` are scratch, and nobody is told of changes."""
    alone: bool = True
    """Whether no other graph reads `write`. Where one does, nobody knows here what it has yet to read."""
    run_is_over: Callable[[str], Awaitable[bool]] | None = None
    """Whether another run, by its id, has been closed for so long that no attempt of it is at work any more;
    also False when that cannot be told. None outside a worker."""

    def options_as(self, model: type[OptionsT]) -> OptionsT:
        """Return the options as `model`, or raise TypeError if they are of another model."""
        if not isinstance(self.options, model):
            raise TypeError(f"options are {type(self.options).__name__}, not {model.__name__}")
        return self.options


class ProviderServices(Protocol):
    """What a worker process shares with its providers: settings, pools, embedding service, meter.

    `syncline.services.Services` is one. All of it is closed after the last provider, by the worker.
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
        """Return the Postgres store of a role by its key in the settings; None is the system's.

        Raise StoreNotConfigured for a key that no setting defines.
        """

    def vector_store(self, key: str | None) -> VectorStore:
        """Return the vector store by its key in the settings; None is the system's.

        Raise StoreNotConfigured for a key that no setting defines.
        """


@runtime_checkable
class Provider(Protocol):
    """What providers of every kind have. Its attribute `kind` says which it is, `sync` without one.

    One that has `required = True` says that nothing can stand in for it: while no worker has it, its graphs
    are held, unless their composition says otherwise by `on_missing`.

    One instance serves every graph of a worker process, concurrently. Register it under the entry point
    group `syncline.providers`; the value is the class or a function that returns an instance.
    """

    id: str
    """Stable name that compositions refer to, e.g. `acme-sync`."""
    version: str
    """The provider's own version, shown to operators."""
    api_version: int
    """The version of its kind's contract that it was written for; for sync it is `API_VERSION`."""

    @abstractmethod
    async def initialize(self, services: ProviderServices) -> None:
        """Prepare what is shared by all graphs. Called once per worker process, before the first use.

        A failed call is repeated at the next use.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release what `initialize` took. Called once, at shutdown."""


@runtime_checkable
class SyncProvider(Provider, Protocol):
    """An engine that syncs a graph: subclass it, or just have its members.

    A `schema_map` (`syncline.engine.SchemaMap`) says which tables it syncs. Without it `verify`, `explain`
    and `parked` know those of the built-in map alone, and say so.
    """

    @abstractmethod
    async def sync_cycle(self, context: SyncContext) -> SyncResult:
        """Run one cycle. It must be resumable, and it must end on cancellation."""


def options_model_of(provider: object) -> type[BaseModel]:
    """Return the options model that a provider declares, `NoOptions` if it declares none."""
    model = getattr(provider, "options_model", NoOptions)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"options_model of provider {provider!r} is not a pydantic model class")
    return model


FACT_DECOMPOSITION_API_VERSION = 1
"""The version of this contract. A provider declares the one it was written for."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceText(_Part):
    """What is to be decomposed: one raw source, as text."""

    key: str
    """Of the raw source in the write-db."""
    text: str
    title: str | None = None
    uri: str | None = None


class DecomposedFact(_Part):
    """One statement that the source makes, understandable without it."""

    content: str
    fact_type: str = "claim"
    snippet: str | None = None
    """The words of the source that say so."""
    metadata: dict[str, JsonValue] = {}


@runtime_checkable
class FactDecompositionProvider(Provider, Protocol):
    """Finds the facts in a text. Its `kind` is `fact_decomposition`."""

    kind: str

    @abstractmethod
    async def decompose(self, source: SourceText, options: BaseModel) -> tuple[DecomposedFact, ...]:
        """Return the facts of the source in the order of the text; none is an answer.

        `options` are the composition's, validated by the provider's `options_model`. It keeps nothing of a
        graph, it may be called for many sources at once, and it ends on cancellation.
        """
