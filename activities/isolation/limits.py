"""Containment of one cycle of plugin code: time limits, cancellation, and return of its connections."""

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from syncline.concurrency import PATIENCE, BaseExceptionRaised, CancelIgnored, TimedOut, bounded
from syncline.errors import ProviderFaulty, ProviderInvalid, ProviderMisbehaved
from syncline.logs import get_log
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.raised import PROGRAMMING_ERRORS, described
from syncline.stores.leases import Leases

__all__ = ["GRACE", "RunCycle", "contained"]

RunCycle = Callable[[SyncContext], Awaitable[SyncResult]]

_OURS: Final = (__file__, bounded.__code__.co_filename)

GRACE: Final = 270.0
"""Seconds beyond its budget for a cycle's current batch, vectors and result. The workflow allows five
minutes; half a minute before that, the provider and the reason can still be reported to the run."""


async def contained(
    run_cycle: RunCycle,
    context: SyncContext,
    *,
    distribution: str,
    plugin: str | None = None,
    grace: float = GRACE,
    patience: float = PATIENCE,
) -> SyncResult:
    """Run the cycle; return its result or raise its error, both in a form that Temporal can encode.

    Raise ProviderMisbehaved if it does not end in time or after its cancellation, tries to end the process,
    or leaves connections open, which are then closed; ProviderFaulty if a plugin raises one of
    PROGRAMMING_ERRORS; ProviderInvalid for an invalid result.
    """
    leases = Leases()
    try:
        with leases.counting():
            result = await _in_time(run_cycle, context, distribution, grace=grace, patience=patience)
    except BaseException as error:
        if left_open := await leases.take_back():
            get_log().warning("connections were taken back", stores=left_open)
        error.__traceback__ = _from_there(error.__traceback__)
        if isinstance(error, PROGRAMMING_ERRORS) and plugin is not None:
            raise _misbehaved(
                context,
                distribution,
                trouble="faulty",
                did=f"raised in a cycle of graph '{context.graph.slug}': {described(error, plugin)}",
                do="Its code has to be mended; until then an earlier version of the plugin may do. The run "
                "is not retried, the next one tries again.",
                kind=ProviderFaulty,
            ) from error
        raise
    if left_open := await leases.take_back():
        raise _misbehaved(
            context,
            distribution,
            trouble="left_open",
            did=f"ended a cycle of graph '{context.graph.slug}' and left {_counted(left_open)} open",
            do="They were closed, and what was not committed is lost. Take connections by `async with`, and "
            "open in `initialize` what outlives a cycle.",
        )
    return _checked(result, context.run.provider, distribution)


def _from_there(traceback: TracebackType | None) -> TracebackType | None:
    """Return the plugin's part of the traceback: Temporal keeps a few KB of an attempt's failure, or none."""
    inner = traceback
    while inner is not None and inner.tb_frame.f_code.co_filename in _OURS:
        inner = inner.tb_next
    return inner or traceback


async def _in_time(
    run_cycle: RunCycle, context: SyncContext, distribution: str, *, grace: float, patience: float
) -> object:
    budget, graph = context.budget.seconds, context.graph.slug
    try:
        return await bounded(run_cycle(context), seconds=budget + grace, patience=patience)
    except TimedOut as error:
        raise _misbehaved(
            context,
            distribution,
            trouble="overran",
            did=f"took more than {budget + grace:g} s for a cycle of graph '{graph}', "
            f"whose time budget was {budget:g} s",
            do="It was cancelled. It has to stop, and return, when `context.budget.seconds` have passed.",
        ) from error
    except CancelIgnored as error:
        raise _misbehaved(
            context,
            distribution,
            trouble="abandoned",
            did=f"did not end a cycle of graph '{graph}' within {patience:g} s after its cancellation",
            do="It was left behind without its connections. It must not swallow `asyncio.CancelledError`; "
            "restart the worker to be rid of what still runs.",
        ) from error
    except BaseExceptionRaised as error:
        raise _misbehaved(
            context,
            distribution,
            trouble="escaped",
            did=f"raised {error} in a cycle of graph '{graph}'",
            do="A cycle fails with an Exception; only those are retried.",
        ) from error


def _misbehaved(
    context: SyncContext,
    distribution: str,
    *,
    trouble: str,
    did: str,
    do: str,
    kind: type[ProviderMisbehaved] = ProviderMisbehaved,
) -> ProviderMisbehaved:
    return kind(context.run.provider, distribution=distribution, trouble=trouble, did=did, do=do)


def _counted(stores: Sequence[str]) -> str:
    told = [f"{stores.count(store)} of store '{store}'" for store in dict.fromkeys(stores)]
    return f"{len(stores)} connection{'s' if len(stores) > 1 else ''} ({', '.join(told)})"


def _checked(result: object, provider: str, distribution: str) -> SyncResult:
    """Return the result validated, or raise ProviderInvalid: `model_construct` validates nothing."""
    problem = f"{type(result).__name__}, not SyncResult"
    if isinstance(result, SyncResult):
        try:
            checked = SyncResult.model_validate(result.model_dump(warnings=False))
            wrong = next(_unlikely(checked), None)
            if wrong is None:
                return checked
        except (ValidationError, PydanticSerializationError) as error:
            wrong = _first_of(error)
        problem = f"a SyncResult that is malformed: {wrong}"
    problem = f"sync_cycle returned {problem}"
    raise ProviderInvalid(provider, distribution=distribution, problem=problem)


def _first_of(error: ValidationError | PydanticSerializationError) -> str:
    if isinstance(error, PydanticSerializationError):
        return "it cannot be serialized"
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _unlikely(model: BaseModel, place: str = "") -> Iterator[str]:
    """Yield the numbers that are not possible counts."""
    for name, value in model:
        if isinstance(value, BaseModel):
            yield from _unlikely(value, f"{place}{name}.")
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _unlikely(item, f"{place}{name}.{number}.")
        elif (isinstance(value, int) and value < 0) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            yield f"{place}{name} is {value:g}"
