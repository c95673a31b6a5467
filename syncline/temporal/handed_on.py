"""Details of failures: the state that a failed run hands on, its result, and what its cycle had committed."""

from collections.abc import Iterator
from typing import Final, TypeVar

from pydantic import ValidationError
from temporalio.exceptions import ApplicationError
from temporalio.exceptions import TimeoutError as ActivityTimeout

from syncline.messages.base import Message
from syncline.messages.sync import Committed, CycleProgress, HandedOn, SyncResult

__all__ = ["CYCLE_FAILED", "committed_before", "failed_result", "fitting", "handed_on"]

MessageT = TypeVar("MessageT", bound=Message)

CYCLE_FAILED: Final = "CycleFailed"
"""Failure type of a run whose cycle returned with failed tables: its result is the first detail."""
_MOST_BYTES: Final = 256 * 1024
"""Maximum bytes kept of a failed cycle's result: half of the size that the server warns about."""
_MOST_TABLES: Final = 200
_MOST_TEXT: Final = 500


def handed_on(failure: BaseException | None) -> HandedOn | None:
    """Return the state in the failure that ended a run; None if it contains none."""
    if not isinstance(failure, ApplicationError) or not failure.details:
        return None
    return _read(HandedOn, failure.details[-1])


def failed_result(failure: BaseException | None) -> SyncResult | None:
    """Return the result of the cycle that failed the run, if it returned one."""
    if not isinstance(failure, ApplicationError) or failure.type != CYCLE_FAILED or not failure.details:
        return None
    return _read(SyncResult, failure.details[0])


def committed_before(
    failure: BaseException | None, progress: CycleProgress | None = None
) -> Committed | None:
    """Return the maximum reported of what a cycle had committed when it raised or was abandoned.

    It is reported by the failure, by the last heartbeat, and by `progress`, which was signalled to the run.
    """
    told = [] if progress is None else [progress.committed]
    told += [found for error in _chain(failure) for found in _committed_of(error)]
    return max(told, key=lambda found: (found.rows, found.links, found.vectors), default=None)


def fitting(result: SyncResult) -> SyncResult:
    """Return the part of a result that fits into a failure; if not all of it, failed tables come first."""
    if _size(result) <= _MOST_BYTES:
        return result
    worked = sorted(result.tables, key=lambda table: table.error is None)
    cut = [
        table.model_copy(update={"error": table.error and table.error[:_MOST_TEXT]})
        for table in worked[:_MOST_TABLES]
    ]
    return result.model_copy(update={"tables": tuple(cut)})


def _committed_of(error: BaseException) -> Iterator[Committed]:
    if isinstance(error, ApplicationError) and error.details:
        told = _read(Committed, error.details[-1])
        if told is not None:
            yield told
    if isinstance(error, ActivityTimeout) and error.last_heartbeat_details:
        progress = _read(CycleProgress, error.last_heartbeat_details[0])
        if progress is not None:
            yield progress.committed


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _read(model: type[MessageT], details: object) -> MessageT | None:
    try:
        return model.model_validate(details)
    except ValidationError:
        return None


def _size(result: SyncResult) -> int:
    return len(result.model_dump_json().encode())
