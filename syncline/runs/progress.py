"""How far the cycle of an open run is, by its last heartbeat: no worker is asked, and nothing is replayed."""

from temporalio.client import Client
from temporalio.service import RPCError

from syncline import names
from syncline.messages import CycleProgress

__all__ = ["progress_of"]


async def progress_of(client: Client, workflow_id: str, run_id: str) -> CycleProgress | None:
    """Return the progress of the run's cycle, None if none is on its way or it has not told any.

    Of a cycle that is tried again that is the progress of its last attempt, until it tells its own.
    """
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        described = await handle.describe()
        for pending in described.raw_description.pending_activities:
            if pending.activity_type.name == names.SYNC_CYCLE and pending.heartbeat_details.payloads:
                payloads = pending.heartbeat_details.payloads
                [progress] = await client.data_converter.decode(payloads, [CycleProgress])
                return CycleProgress.model_validate(progress)
    except (RPCError, ValueError, RuntimeError):
        # It cannot be asked, or a provider of its own release tells something else.
        return None
    return None
