"""Compare-and-swap update of a Schedule: concurrent changes by others are not overwritten."""

from collections.abc import Callable
from typing import Final
from uuid import uuid4

from temporalio.api.workflowservice.v1 import UpdateScheduleRequest
from temporalio.client import Client, ScheduleDescription, ScheduleHandle, ScheduleUpdate
from temporalio.converter import encode_search_attributes
from temporalio.service import RPCError, RPCStatusCode

from syncline.errors import TemporalUnavailable

__all__ = ["change"]

_ATTEMPTS: Final = 5
_CONFLICTS: Final = frozenset({RPCStatusCode.ABORTED, RPCStatusCode.FAILED_PRECONDITION})


async def change(
    client: Client, schedule_id: str, changed: Callable[[ScheduleDescription], ScheduleUpdate | None]
) -> bool:
    """Update the Schedule until `changed` returns None; return whether it was updated.

    Raise the SDK's error, also if the Schedule does not exist; TemporalUnavailable if others keep changing
    it.
    """
    # The SDK's `update` does not send the conflict token, so it would overwrite concurrent changes.
    handle = client.get_schedule_handle(schedule_id)
    for attempt in range(_ATTEMPTS):
        present = await _read(handle)
        update = changed(present)
        if update is None:
            return attempt > 0
        request = UpdateScheduleRequest(
            namespace=client.namespace,
            schedule_id=schedule_id,
            schedule=await update.schedule._to_proto(client),  # noqa: SLF001 # no public API
            conflict_token=present.raw_description.conflict_token,
            identity=client.identity,
            request_id=str(uuid4()),
        )
        if update.search_attributes is not None:
            encode_search_attributes(update.search_attributes, request.search_attributes)
        try:
            # The server silently drops an update with an outdated token: reading it again reveals that.
            await client.workflow_service.update_schedule(request, retry=True)
        except RPCError as error:
            if error.status not in _CONFLICTS:
                raise
    host = client.service_client.config.target_host
    raise TemporalUnavailable(host, client.namespace, f"others keep changing Schedule '{schedule_id}'")


async def _read(handle: ScheduleHandle) -> ScheduleDescription:
    """Return the Schedule with search attributes as new as its other fields.

    The server reads the attributes first, and only then waits for a pending update.
    """
    found = await handle.describe()
    while True:
        again = await handle.describe()
        if again.raw_description.conflict_token == found.raw_description.conflict_token:
            return again
        found = again
