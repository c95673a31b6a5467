"""What a run says of itself: a query, which a worker has to answer."""

import asyncio

from temporalio.client import Client, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.service import RPCError

from syncline import names
from syncline.errors import QuestionUnanswered
from syncline.messages import SyncState

__all__ = ["state_of"]


async def state_of(client: Client, workflow_id: str, run_id: str, *, seconds: float) -> SyncState:
    """Return the state of a run, open or closed, or raise QuestionUnanswered."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        # A timeout of the call itself would be kept by the client alone; this one ends the waiting.
        async with asyncio.timeout(seconds):
            state: SyncState = await handle.query(names.SYNC_STATE, result_type=SyncState)
    except TimeoutError:
        raise QuestionUnanswered(workflow_id, f"no worker answered within {seconds:g} s.") from None
    except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
        raise QuestionUnanswered(workflow_id, f"no worker answered ({error}).") from error
    return state
