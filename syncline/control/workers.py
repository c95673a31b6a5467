"""Worker registration: each worker upserts its record in the control plane and refreshes it."""

import asyncio
import contextlib
import platform
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from typing import Final, Protocol
from uuid import UUID, uuid4

from sqlalchemy import Column, DateTime, MetaData, Table, Text, Uuid, delete, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from syncline.errors import EmbeddingDiffers, StoreError, StoreRejected
from syncline.logs import get_log
from syncline.messages.base import Message
from syncline.registry import Registry
from syncline.settings import Settings
from syncline.stores.login import Usability
from syncline.stores.postgres import PostgresStore

__all__ = ["InstalledProvider", "WorkerRecord", "WorkerRepository", "register_worker"]

_EVERY: Final = 30.0
_NEWS: Final = 1.0
_GONE_AFTER: Final = text("interval '100 seconds'")
"""Three missed refreshes, plus a margin."""
_FORGOTTEN_AFTER: Final = text("interval '15 minutes'")

_workers = Table(
    "workers",
    MetaData(schema="syncline"),
    Column("id", Uuid, primary_key=True),
    Column("identity", Text),
    Column("task_queue", Text),
    Column("started_at", DateTime(timezone=True)),
    Column("seen_at", DateTime(timezone=True)),
    Column("syncline_version", Text),
    Column("deployment_version", Text),
    Column("python_version", Text),
    Column("providers", JSONB),
    Column("problems", JSONB),
    Column("unusable", JSONB),
    Column("embeddings", JSONB),
)


_required = Table(
    "required_providers",
    MetaData(schema="syncline"),
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("distribution", Text),
)


class InstalledProvider(Message):
    """A provider registered in one worker."""

    kind: str
    id: str
    version: str
    api_version: int
    distribution: str
    """`name version` of the installed distribution."""
    routed: bool = False
    """Whether the worker polls the task queue of its cycles."""
    required: bool = False
    """Whether the provider declares itself required (irreplaceable by the built-in engine)."""


class WorkerRecord(Message):
    """One worker process."""

    id: UUID
    identity: str
    """Identity `syncline@host:pid`, the same as in Temporal."""
    task_queue: str
    started_at: datetime
    seen_at: datetime
    syncline_version: str
    deployment_version: str | None = None
    """`deployment:build`, as Temporal writes it; null without Worker Versioning."""
    python_version: str
    providers: tuple[InstalledProvider, ...] = ()
    problems: tuple[str, ...] = ()
    """Plugins that were not registered, and why."""
    unusable: tuple[str, ...] = ()
    """Stores that refuse this worker's login, and graphs whose vectors are of other settings, and why."""
    embeddings: tuple[str, ...] = ()
    """The embeddings that it offers, by name."""


class WorkerRepository:
    """Repository of worker records in the control database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def upsert(
        self, worker: Mapping[str, object], *, providers: Sequence[InstalledProvider] = ()
    ) -> None:
        """Upsert a worker's record with its providers, and delete the records of workers long gone.

        Whether a provider is required is kept longer: until all workers that have it declare otherwise.
        """
        worker = {**worker, "providers": [provider.model_dump() for provider in providers]}
        written = insert(_workers).values(worker)
        changes = {
            "seen_at": func.now(),
            "providers": written.excluded.providers,
            "unusable": written.excluded.unusable,
        }
        async with self._store.begin() as connection:
            await connection.execute(
                written.on_conflict_do_update(index_elements=[_workers.c.id], set_=changes)
            )
            await connection.execute(
                delete(_workers).where(_workers.c.seen_at < func.now() - _FORGOTTEN_AFTER)
            )

            await _remember(connection, providers)

    async def required(self, kind: str, provider_id: str) -> bool:
        """Return whether the provider declared itself required when a worker last had it."""
        wanted = (_required.c.kind == kind) & (_required.c.id == provider_id)
        async with self._store.begin() as connection:
            return (await connection.execute(select(_required.c.id).where(wanted))).first() is not None

    async def delete(self, worker_id: UUID) -> None:
        """Delete the record of a worker that ends."""
        async with self._store.begin() as connection:
            await connection.execute(delete(_workers).where(_workers.c.id == worker_id))

    async def list(self) -> Sequence[WorkerRecord]:
        """Return the live workers, by identity."""
        statement = (
            select(_workers)
            .where(_workers.c.seen_at > func.now() - _GONE_AFTER)
            .order_by(_workers.c.identity, _workers.c.id)
        )
        async with self._store.begin() as connection:
            rows = (await connection.execute(statement)).mappings().all()
        return [WorkerRecord.model_validate(dict(row)) for row in rows]

    async def routed(
        self, kind: str, provider_id: str, *, task_queue: str, deployment_version: str | None = None
    ) -> InstalledProvider | None:
        """Return a routed provider that a live worker has, in its newest version; None if there is none.

        With Worker Versioning a run is served only by workers of its version, so only those count.
        """
        wanted = [{"kind": kind, "id": provider_id, "routed": True}]
        statement = (
            select(_workers.c.providers)
            .where(_workers.c.task_queue == task_queue)
            .where(_workers.c.deployment_version.is_not_distinct_from(deployment_version))
            .where(_workers.c.seen_at > func.now() - _GONE_AFTER)
            .where(_workers.c.providers.contains(wanted))
        )
        async with self._store.begin() as connection:
            rows = (await connection.execute(statement)).scalars().all()
        installed = [InstalledProvider.model_validate(found) for providers in rows for found in providers]
        return max(
            (found for found in installed if found.routed and (found.kind, found.id) == (kind, provider_id)),
            key=_age,
            default=None,
        )


class RegisteringServices(Protocol):
    """The part of `syncline.services.Services` that a worker's registration needs."""

    @property
    def settings(self) -> Settings:
        """Task queue and deployment version of this worker."""

    @property
    def registry(self) -> Registry:
        """The providers of this worker."""

    @property
    def usability(self) -> Usability:
        """The stores that refuse this worker."""

    @property
    def workers(self) -> WorkerRepository:
        """The repository of worker records."""

    @property
    def embedding_names(self) -> Sequence[str]:
        """The embeddings that this worker offers."""

    async def foreign_vectors(self) -> Sequence[EmbeddingDiffers]:
        """Return why this worker must not write the vectors of each graph for which that is so."""


async def _remember(connection: AsyncConnection, providers: Sequence[InstalledProvider]) -> None:
    required = [
        {"kind": provider.kind, "id": provider.id, "distribution": provider.distribution}
        for provider in providers
        if provider.required
    ]
    if required:
        await connection.execute(insert(_required).values(required).on_conflict_do_nothing())
    others = [(provider.kind, provider.id) for provider in providers if not provider.required]
    if others:
        # While two versions are installed, required takes precedence.
        one = func.jsonb_build_object("kind", _required.c.kind, "id", _required.c.id, "required", True)
        said = (
            select(_workers.c.id)
            .where(_workers.c.seen_at > func.now() - _GONE_AFTER)
            .where(_workers.c.providers.op("@>")(func.jsonb_build_array(one)))
        )
        await connection.execute(
            delete(_required)
            .where(tuple_(_required.c.kind, _required.c.id).in_(others))
            .where(~said.exists())
        )


def _age(provider: InstalledProvider) -> tuple[list[int], str, str]:
    """Return the sort key of versions: their numbers, then fields that make the order stable."""
    numbers = [int(number) for number in re.findall(r"\d+", provider.version)]
    return numbers, provider.version, provider.distribution


def _installed(registry: Registry) -> Sequence[InstalledProvider]:
    """Return the providers available for new work, by kind and id."""
    return [
        InstalledProvider(
            kind=registered.kind,
            id=registered.provider.id,
            version=registered.provider.version,
            api_version=registered.provider.api_version,
            distribution=registered.distribution,
            routed=registered.routed,
            required=registered.required,
        )
        for registered in registry.registered()
        if not registry.withdrawn(registered.kind, registered.provider.id)
    ]


@asynccontextmanager
async def register_worker(
    services: RegisteringServices, *, identity: str, every_seconds: float = _EVERY
) -> AsyncIterator[None]:
    """Keep this worker registered in the control plane while entered.

    If the control database is unavailable, or lacks the table, this is logged as a WARNING once and retried;
    it neither delays nor ends the worker.
    """
    worker: dict[str, object] = {
        "id": uuid4(),
        "identity": identity,
        "task_queue": services.settings.task_queue,
        "syncline_version": version("syncline"),
        "deployment_version": services.settings.deployment_version,
        "python_version": platform.python_version(),
        "problems": [str(problem) for problem in services.registry.problems],
        "embeddings": list(services.embedding_names),
    }
    registering = asyncio.create_task(_keep_registered(services, worker, every_seconds))
    try:
        yield
    finally:
        registering.cancel()
        await asyncio.gather(registering, return_exceptions=True)
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(5):
                await services.workers.delete(UUID(str(worker["id"])))


async def _keep_registered(
    services: RegisteringServices, worker: Mapping[str, object], every_seconds: float
) -> None:
    log = get_log()
    failed = False
    while True:
        refused = services.usability.refused()
        try:
            # No cycle may be routed to a worker that does not poll.
            installed = () if services.usability.barred else _installed(services.registry)
            unusable = [*services.usability.problems(), *map(str, await services.foreign_vectors())]
            await services.workers.upsert({**worker, "unusable": unusable}, providers=installed)
            failed = False
        except StoreError as error:
            hint = "; `syncline migrate` creates its table" if isinstance(error, StoreRejected) else ""
            (log.debug if failed else log.warning)(f"worker registration failed{hint}", error=str(error))
            failed = True
        until = time.monotonic() + every_seconds
        # Refresh early when a store starts or stops refusing this worker: routing depends on it.
        while time.monotonic() < until and services.usability.refused() == refused:  # noqa: ASYNC110
            await asyncio.sleep(min(_NEWS, every_seconds))
