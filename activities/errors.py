"""Errors of the library as Temporal sees them: translated once, here, and told once."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from traceback import walk_tb
from types import TracebackType
from typing import Final

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError

from syncline.errors import ProviderMisbehaved, SynclineError
from syncline.logs import get_log
from syncline.masking import error_text
from syncline.messages.base import Message

__all__ = ["errors_translated", "not_logged_yet", "translated"]

_FRAMES: Final = 8


def translated(error: SynclineError, *details: Message) -> ApplicationError:
    """Return the error for Temporal: its class is the type and says if a retry helps, itself says when."""
    seconds = error.retry_after_seconds
    return ApplicationError(
        str(error),
        *details,
        type=type(error).__name__,
        non_retryable=not error.retryable,
        next_retry_delay=None if seconds is None else timedelta(seconds=seconds),
        category=ApplicationErrorCategory.BENIGN if error.benign else ApplicationErrorCategory.UNSPECIFIED,
    )


@contextmanager
def errors_translated(details: Callable[[], Sequence[Message]] = tuple, **fields: object) -> Iterator[None]:
    """Raise ApplicationError in place of a SynclineError, as `translated` has it, with these details.

    It is logged in one line with `fields`, as an error when somebody has to mend a provider, as information
    when it is benign. Of any other exception the traceback is logged, and Temporal, which retries it, is
    told what it says without values, and its innermost frames.
    """
    try:
        yield
    except SynclineError as error:
        log = get_log()
        mend = isinstance(error, ProviderMisbehaved) and not error.retryable
        tell = log.error if mend else log.info if error.benign else log.warning
        kind = type(error).__name__
        tell("activity failed", **fields, kind=kind, retryable=error.retryable, error=str(error))
        log.debug("below that error", cause=repr(error.__cause__))
        # A driver's error may quote the statement's parameters, which are rows: those never enter history.
        error.__cause__ = None
        error.__suppress_context__ = True
        # The line above tells it. Of the failure of an attempt Temporal keeps a few KB, or only says that.
        error.__traceback__ = None
        raise translated(error, *details()) from error
    except FailureError:
        raise
    except Exception as error:
        log = get_log()
        log.exception("activity raised", **fields, kind=type(error).__name__)
        failure = ApplicationError(error_text(error), *details(), type=type(error).__name__)
        raise failure.with_traceback(_innermost(error.__traceback__)) from None


def _innermost(traceback: TracebackType | None) -> TracebackType | None:
    """Return the end of a traceback: of the failure of an attempt Temporal keeps a few KB, or nothing."""
    left = 0 if traceback is None else sum(1 for _ in walk_tb(traceback))
    while traceback is not None and left > _FRAMES:
        traceback, left = traceback.tb_next, left - 1
    return traceback


def not_logged_yet(record: logging.LogRecord) -> bool:
    """Filter the SDK's log of activities: what `errors_translated` told in one line needs no traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ApplicationError)
