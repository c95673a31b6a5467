"""The signals that tell a run what became of its provider, for the record: fallback, held, returned."""

from datetime import UTC, datetime

from temporalio import activity
from temporalio.service import RPCError

from activities.run import run_identity, signal_run
from syncline import names
from syncline.logs import get_log
from syncline.messages import CycleStatus, Fallback, GraphRef, ProviderFallback, SyncCycleRequest, SyncResult
from syncline.presence import Held, ProviderHeld, ProviderReturned

__all__ = ["signal_fallback", "signal_held", "signal_returned"]


async def signal_fallback(graph: GraphRef, fallback: Fallback) -> None:
    """Tell the run that the built-in engine stands in."""
    key = _key(fallback.reason.value)
    signal = ProviderFallback(idempotency_key=key, graph=graph, fallback=fallback, at=datetime.now(UTC))
    await signal_run(names.PROVIDER_FALLBACK, signal)


async def signal_held(graph: GraphRef, held: Held) -> None:
    """Tell the run that nothing is synced."""
    signal = ProviderHeld(idempotency_key=_key("held"), graph=graph, held=held, at=datetime.now(UTC))
    await signal_run(names.PROVIDER_HELD, signal)


async def signal_returned(request: SyncCycleRequest, result: SyncResult) -> None:
    """Tell the run that a provider serves its graph again, if it had been away.

    Not after a cycle that failed: the stretch is carried on, and the first cycle that does not fail tells of
    it. That it cannot be told is only logged: the cycle is committed and counted, and the run knows of its
    return.
    """
    if request.away is None or request.provider_id is None or result.status is CycleStatus.FAILED:
        return
    signal = ProviderReturned(
        idempotency_key=_key("returned"),
        graph=request.graph,
        provider_id=request.provider_id,
        served=result.served,
        away=request.away,
        at=datetime.now(UTC),
    )
    log = get_log().bind(was=request.away.how.value, since=request.away.since.isoformat())
    try:
        await signal_run(names.PROVIDER_RETURNED, signal)
    except RPCError as error:
        log.warning("provider's return was not signalled", error=str(error))
    log.info("provider returned")


def _key(edge: str) -> str:
    """Return what makes the signals of all attempts of this activity one: its id is the same for all."""
    return f"{run_identity().run_id}/{activity.info().activity_id}/{edge}"
