"""What the probes look at outside the worker: write-db, graph-db, control plane, Qdrant, Temporal."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from syncline.control.readiness import reach_vectors
from syncline.control.services import Services
from syncline.errors import StoreUnavailable
from syncline.settings import Settings
from syncline.stores.postgres import PostgresStore
from syncline.temporal.client import connect_again, temporal_errors_mapped

__all__ = ["Look", "looks", "settings_of_looks"]

_ANSWERED: Final = (
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNIMPLEMENTED,
)
"""Errors with which a server that works answers a look."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a store or service: `ask` returns if it works, and raises what is wrong."""

    name: str
    fix: str
    ask: Callable[[], Awaitable[object]]


def settings_of_looks(settings: Settings) -> Settings:
    """Return the settings of the looks' stores: one connection to each, which is kept between looks."""
    return settings.model_copy(update={"pool_size": 1})


def looks(services: Services, client: Client) -> Sequence[Look]:
    """Return the looks at the default stores and at Temporal, with services and a client of their own.

    Their pools are not those of cycles, which may use all of theirs. Further stores are not looked at: the
    worker serves other graphs without them, and `syncline doctor` names them.
    """
    settings = services.settings
    found = [
        Look(
            name="write-db",
            fix="Bring the server up, or correct SYNCLINE_WRITE_DSN of this worker.",
            ask=lambda: _answers(services.store("write", None)),
        ),
        Look(
            name="graph-db",
            fix="Bring the server up, or correct SYNCLINE_GRAPH_DSN of this worker.",
            ask=lambda: _takes_writes(services.store("graph", None)),
        ),
        Look(
            name="control plane",
            fix="Bring its database up, or run `syncline migrate` if its tables are missing.",
            ask=lambda: _has_records(services.control),
        ),
        Look(
            name="Temporal",
            fix="Bring Temporal up, or correct TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE of this worker.",
            ask=_TemporalLook(client, settings.task_queue),
        ),
    ]
    # The embedded store is in this process.
    if settings.qdrant_url is not None:
        found.append(
            Look(
                name="Qdrant",
                fix="Bring the server up, or correct SYNCLINE_QDRANT_URL and _API_KEY of this worker. "
                "Vectors wait meanwhile; rows do not.",
                ask=lambda: reach_vectors(services, None),
            )
        )
    return found


async def _answers(store: PostgresStore) -> None:
    async with store.driver() as connection:
        await connection.fetchval("SELECT 1")


async def _takes_writes(store: PostgresStore) -> None:
    async with store.driver() as connection:
        standby = await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()")
    if standby:
        raise StoreUnavailable(store.name, "it is a standby, which takes no writes")


async def _has_records(store: PostgresStore) -> None:
    async with store.driver() as connection:
        await connection.fetchval("SELECT 1 FROM syncline.graphs LIMIT 1")


class _TemporalLook:
    """Asks for a description of the task queue: the frontend, the namespace and matching have to answer."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._connected_like, self._client = client, None
        self._request = DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )

    _client: Client | None

    async def __call__(self) -> None:
        if self._client is None:
            # A client belongs to one event loop.
            self._client = await connect_again(self._connected_like)
        with temporal_errors_mapped(self._client):
            try:
                await self._client.workflow_service.describe_task_queue(self._request)
            except RPCError as error:
                if error.status not in _ANSWERED:
                    raise
