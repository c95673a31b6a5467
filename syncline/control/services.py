"""Shared services of one process: settings, Postgres pools, vector stores, embedding services, providers.

One module because what opens them also closes them.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Literal, Self

from pydantic import JsonValue

from syncline import names
from syncline.control.embedding_record import EmbeddingRecord, EmbeddingRecords, differing, fitting, record_of
from syncline.control.graphs import Graph, GraphRepository
from syncline.control.maps import MapRepository, map_options
from syncline.control.offered import OfferedEmbedding, open_embedding
from syncline.control.rebuild_record import RebuildRecords
from syncline.control.usage import ServiceBudget, UsageLedger
from syncline.control.workers import WorkerRepository
from syncline.embeddings.service import EmbeddingService
from syncline.errors import (
    EmbeddingDiffers,
    EmbeddingError,
    EmbeddingUnavailable,
    MapNotFound,
    StoreError,
    StoreNotConfigured,
    VectorStoreError,
)
from syncline.migrations import (
    migrate_bookkeeping,
    migrate_control,
    migrate_graph,
    migrate_shadow,
    migrate_write,
)
from syncline.provider import GraphSchema, GraphVectors, Meter, NullMeter, StoreRole
from syncline.registry import Registry
from syncline.settings import (
    FIRST_EMBEDDING,
    SECOND_EMBEDDING,
    Settings,
    setting_of,
)
from syncline.stores.login import Usability
from syncline.stores.open_collections import OpenCollections
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import VectorStore

__all__ = ["Role", "Services"]

Role = StoreRole
_Opened = Role | Literal["control", "workers"]
_WORKERS_POOL = 2
_UNDER_WAY = 30.0
"""Seconds beyond its timeout after which a request of another worker counts as lost."""


class Services:
    """Services that all graphs of a process share. Stores are opened on first use.

    Use `async with Services.open(settings, registry=registry) as services`. It belongs to one event loop.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        registry: Registry | None = None,
        meter: Meter | None = None,
        embedding: EmbeddingService | None = None,
        second_embedding: EmbeddingService | None = None,
        application_name: str = "syncline",
        usability: Usability | None = None,
    ) -> None:
        """Take ownership of the arguments. Without a registry there are no providers."""
        self.settings = settings
        self.registry = registry or Registry()
        self.meter: Meter = meter or NullMeter()
        self.usability = usability or Usability()
        self._application_name = application_name
        self._embedding, self._second_embedding = embedding, second_embedding
        self._stores: dict[tuple[_Opened, str | None], PostgresStore] = {}
        self._vector_stores: dict[str | None, VectorStore] = {}
        self._maps: MapRepository | None = None
        self._usage: UsageLedger | None = None
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        registry: Registry | None = None,
        meter: Meter | None = None,
        embedding: EmbeddingService | None = None,
        second_embedding: EmbeddingService | None = None,
        application_name: str = "syncline",
        usability: Usability | None = None,
    ) -> AsyncIterator[Self]:
        """Yield services, and close them at the end."""
        services = cls(
            settings,
            registry=registry,
            meter=meter,
            embedding=embedding,
            second_embedding=second_embedding,
            application_name=application_name,
            usability=usability,
        )
        try:
            yield services
        finally:
            await services.close()

    @property
    def graphs(self) -> GraphRepository:
        """The graph records of the control plane."""
        return GraphRepository(self.control)

    @property
    def maps(self) -> MapRepository:
        """The stored maps of the control plane."""
        if self._maps is None:
            self._maps = MapRepository(self.control)
        return self._maps

    @property
    def embedding_records(self) -> EmbeddingRecords:
        """What each graph's vectors are made with, in the control plane."""
        return EmbeddingRecords(self.control)

    @property
    def rebuilds(self) -> RebuildRecords:
        """The graphs' rebuilds, in the control plane."""
        return RebuildRecords(self.control)

    @property
    def workers(self) -> WorkerRepository:
        """The workers registered in the control plane.

        It has a separate connection pool: otherwise a worker whose cycles use up the pool could not refresh
        its registration and would count as gone, its plugins included.
        """
        return WorkerRepository(self._opened("workers", None))

    @property
    def control(self) -> PostgresStore:
        """The control-plane database: SYNCLINE_CONTROL_DSN, or the default graph-db."""
        if self.settings.control_dsn is None:
            return self.store("graph", None)
        return self._opened("control", None)

    @property
    def embedding(self) -> EmbeddingService:
        """The first embedding service."""
        self._refuse_when_closed()
        if self._embedding is None:
            self._embedding = open_embedding(self.settings)
        return self._embedding

    @property
    def second_embedding(self) -> EmbeddingService | None:
        """The second embedding service, if there is one; raise EmbeddingRejected if it is unusable."""
        self._refuse_when_closed()
        if self._second_embedding is None and self.settings.second is not None:
            self._second_embedding = open_embedding(self.settings.second, variables=SECOND_EMBEDDING)
        return self._second_embedding

    @property
    def offered(self) -> Sequence[OfferedEmbedding]:
        """The embedding services of this process, the first one first.

        A second one that cannot be opened is left out: its generation waits, as `doctor` says.
        """
        first = OfferedEmbedding(service=self.embedding, settings=self.settings, variables=FIRST_EMBEDDING)
        second: EmbeddingService | None = None
        with suppress(EmbeddingError):
            second = self.second_embedding
        if second is None:
            return (first,)
        settings = self.settings.second or self.settings
        return first, OfferedEmbedding(service=second, settings=settings, variables=SECOND_EMBEDDING)

    @property
    def service_budgets(self) -> Mapping[str, ServiceBudget]:
        """Name -> budget of tokens of each embedding service of this process."""
        return {
            one.service.name: ServiceBudget(one.settings.embedding_tokens_per_day, variables=one.variables)
            for one in reversed(self.offered)
        }

    @property
    def embeddings(self) -> Sequence[EmbeddingService]:
        """The embedding services that this process offers, `embedding` first."""
        return tuple(one.service for one in self.offered)

    @property
    def embedding_names(self) -> Sequence[str]:
        """The names of these services; none if the first one cannot be opened."""
        try:
            return [service.name for service in self.embeddings]
        except EmbeddingError:
            return []

    @property
    def usage(self) -> UsageLedger:
        """The ledger of embeddings."""
        if self._usage is None:
            offered = self.offered
            self._usage = UsageLedger(
                self.control,
                tokens_per_day=self.settings.embedding_tokens_per_day,
                patience=max(one.settings.embedding_timeout_seconds for one in offered) + _UNDER_WAY,
                others=self.service_budgets,
            )
        return self._usage

    def store(self, role: Role, key: str | None) -> PostgresStore:
        """Return the Postgres store that a graph refers to; None is the role's default store.

        Raise StoreNotConfigured for a key that no setting defines.
        """
        return self._opened(role, key)

    def vector_store(self, key: str | None) -> VectorStore:
        """Return the vector store that a graph refers to; None is the default one, a server or embedded.

        Raise StoreNotConfigured for a key that no setting defines.
        """
        self._refuse_when_closed()
        if key not in self._vector_stores:
            self._vector_stores[key] = self._open_vector_store(key)
        return self._vector_stores[key]

    def write_schema(self, graph: Graph) -> GraphSchema:
        """Return the graph's schema in its write-db."""
        return GraphSchema(store=self.store("write", graph.write_store), schema=graph.source_schema)

    def target_schema(self, graph: Graph, *, shadow: bool = False) -> GraphSchema:
        """Return the graph's schema in its graph-db, or its shadow's."""
        schema = names.shadow_schema(graph.schema_name) if shadow else graph.schema_name
        return GraphSchema(store=self.store("graph", graph.graph_store), schema=schema)

    def graph_vectors(self, graph: Graph, *, shadow: bool = False) -> GraphVectors:
        """Return the graph's collections, or its shadow's."""
        prefix = names.shadow_prefix(graph.qdrant_prefix) if shadow else graph.qdrant_prefix
        return GraphVectors(
            store=self.vector_store(graph.qdrant_store), prefix=prefix, options=graph.vectors.collections
        )

    async def embedding_refusal(self, graph: Graph, made_by: Sequence[str]) -> EmbeddingError | None:
        """Return why `embedding` must not make the graph's vectors, None if it may; record what it has.

        See `EmbeddingRecords.claim` for `made_by`.
        """
        mine = record_of(self.embedding, self.vector_store(graph.qdrant_store))
        found = await self._place_of(graph, [mine], 1, made_by)
        return found if isinstance(found, EmbeddingError) else None

    async def embedding_of(
        self, graph: Graph, generation: int, made_by: Sequence[str], second: bool
    ) -> int | EmbeddingError:
        """Return the place in `embeddings` of the service of a generation, or why none may make its vectors.

        What is not recorded yet is recorded, see `EmbeddingRecords.claim`. `second`: the graph has another
        generation, its main one.
        """
        return await self._place_of(
            graph, self._offered(graph.qdrant_store), generation, made_by, second=second
        )

    def _offered(self, store: str | None) -> Sequence[EmbeddingRecord]:
        return [record_of(service, self.vector_store(store)) for service in self.embeddings]

    async def _place_of(
        self,
        graph: Graph,
        offered: Sequence[EmbeddingRecord],
        generation: int,
        made_by: Sequence[str],
        *,
        second: bool = False,
    ) -> int | EmbeddingError:
        name = offered[0].embedding
        try:
            recorded = await self.embedding_records.claim(
                graph.id, offered, made_by=made_by, generation=generation
            )
        except StoreError as error:
            problem = f"nothing is written: what the graph's vectors are made with cannot be asked. {error}"
            return EmbeddingUnavailable(name, problem)
        if recorded is None:
            problem = (
                f"nothing is written: what generation {generation} of the vectors is made with is not "
                f"recorded. Record it again: `syncline embedding start {graph.slug}`."
            )
            return EmbeddingUnavailable(name, problem)
        place = fitting(recorded, offered)
        if place is not None:
            return place
        return differing(graph.slug, recorded, offered, second=second) or 0

    async def vectors_made_with(self, graph: Graph, generation: int = 1) -> str:
        """Return the name of the embedding service of a generation: of its record, or this process's.

        Raise EmbeddingDiffers if they are in another vector store than this process would look in.
        """
        recorded = await self.embedding_records.get(graph.id, generation)
        if recorded is None:
            return self.embedding.name
        mine = record_of(self.embedding, self.vector_store(graph.qdrant_store))
        place = EmbeddingRecord(embedding=recorded.embedding, store=recorded.store)
        elsewhere = differing(graph.slug, place, [mine.model_copy(update={"embedding": recorded.embedding})])
        if elsewhere is not None:
            raise elsewhere
        return recorded.embedding

    async def foreign_vectors(self) -> Sequence[EmbeddingDiffers]:
        """Return why this process must not write the vectors of each graph for which that is so.

        Only by what is recorded; a graph whose store or service this process cannot open is left out.
        """
        # By the pool of registrations: cycles may use up the other.
        records = EmbeddingRecords(self._opened("workers", None))
        found, before = [], None
        for slug, store, recorded in await records.of_graphs():
            with suppress(StoreNotConfigured, EmbeddingError, VectorStoreError):
                found.append(differing(slug, recorded, self._offered(store), second=slug == before))
            before = slug
        return [problem for problem in found if problem is not None]

    async def prepare_control(self) -> list[str]:
        """Migrate the control plane; return the applied revisions."""
        return await migrate_control(self.control)

    async def prepare_graph(self, graph: Graph) -> list[str]:
        """Migrate the graph's schema in both stores, and its shadow's; return the applied revisions.

        A graph of a stored map has tables of its own in both: in the graph-db it gets the bookkeeping tables,
        and in the write-db nothing, since `syncline graph adopt` installs capture there.
        """
        # It imports the engine, which most commands never need.
        from syncline.rights.missing import take_rights

        write = self.write_schema(graph)
        target, shadow = self.target_schema(graph), self.target_schema(graph, shadow=True)
        await self.check_tenants(graph.composition)
        own = await self.maps.load(map_options(graph.composition))
        applied = []
        if own is None:
            applied += await migrate_write(write.store, write.schema)
            applied += await migrate_graph(target.store, target.schema)
        else:
            applied += await migrate_bookkeeping(target.store, target.schema)
        beside = map_options(graph.composition, shadow=True).map is not None
        applied += await migrate_shadow(shadow.store, shadow.schema, bookkeeping_only=beside)
        await take_rights(graph, target=target, write=write, schema_map=None if own is None else own[1])
        return applied

    async def check_tenants(self, composition: Mapping[str, JsonValue]) -> None:
        """Raise TenantInvalid if a stored map has tenants, and the composition names none, or no such value.

        And the contrary. A map that is not stored is told of elsewhere.
        """
        for shadow in (False, True):
            with suppress(MapNotFound):
                await self.maps.load(map_options(composition, shadow=shadow))

    async def close(self) -> None:
        """Close providers, then stores and services. Idempotent; a failure does not stop the rest."""
        if self._closed:
            return
        self._closed = True
        async with AsyncExitStack() as last_first:
            for store in self._stores.values():
                last_first.push_async_callback(store.close)
            for vectors in self._vector_stores.values():
                last_first.push_async_callback(vectors.close)
            for service in (self._embedding, self._second_embedding):
                if service is not None:
                    last_first.push_async_callback(service.close)
            if self._usage is not None:
                last_first.push_async_callback(self._usage.close)
            last_first.push_async_callback(self.registry.close)

    def _opened(self, role: _Opened, key: str | None) -> PostgresStore:
        self._refuse_when_closed()
        if (role, key) not in self._stores:
            system = {
                "write": self.settings.write_dsn,
                "graph": self.settings.graph_dsn,
                "control": self.settings.control_dsn,
                "workers": self.settings.control_dsn or self.settings.graph_dsn,
            }
            dsn = system[role] if key is None else self.settings.stores.get(key)
            if dsn is None:
                raise StoreNotConfigured(role=role, key=key or role, known=list(self.settings.stores))
            where = "control" if role == "workers" and self.settings.control_dsn is not None else role
            where = "graph" if where == "workers" else where
            self._stores[role, key] = PostgresStore(
                self.control.name if role == "workers" else key or role,
                dsn,
                pool_size=_WORKERS_POOL if role == "workers" else self.settings.pool_size,
                application_name=self._application_name,
                owner_role=self.settings.owner_role,
                setting=setting_of(where if key is None else "stores", key),
                password_command=self.settings.password_commands.get(where if key is None else key),
                usability=self.usability,
            )
        return self._stores[role, key]

    def _open_vector_store(self, key: str | None) -> VectorStore:
        settings = self.settings
        named, url, api_key = key or "qdrant", settings.qdrant_url, settings.qdrant_api_key
        if key is not None:
            server = settings.qdrants.get(key)
            if server is None:
                raise StoreNotConfigured(role="Qdrant", key=key, known=list(settings.qdrants))
            url, api_key = server.url, server.api_key
        # Both are slow to import, and the embedded store needs an optional dependency.
        if url is not None:
            from syncline.stores.qdrant_server import QdrantServerStore

            return QdrantServerStore(named, url, api_key, settings.qdrant_timeout_seconds)
        from syncline.stores.qdrant_edge import EmbeddedQdrantStore

        opened = OpenCollections.of_this_process(settings.qdrant_path)
        return EmbeddedQdrantStore(named, settings.qdrant_path, opened=opened)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RuntimeError("these services are closed; open new ones with Services.open(settings)")
