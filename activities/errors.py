"""Error translation: the library's errors become ApplicationError here, and are logged once."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from traceback import walk_tb
from types import TracebackType
from typing import Final

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError

from syncline.errors import ProviderFaulty, ProviderMisbehaved, SynclineError
from syncline.logs import get_log
from syncline.masking import error_text
from syncline.messages.base import Message

__all__ = ["errors_translated", "not_logged_yet", "translated"]

_FRAMES: Final = 8


def translated(error: SynclineError, *details: Message) -> ApplicationError:
    """Return the ApplicationError: type and retryability of the error's class, next delay of the error."""
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
    """Raise the ApplicationError of `translated`, with these details, in place of a SynclineError.

    The error is logged in one line with `fields`: ERROR if a provider must be fixed, INFO if it is benign,
    otherwise WARNING. Any other exception is logged with its traceback and raised as a retryable
    ApplicationError with its message without values and its innermost frames.
    """
    try:
        yield
    except SynclineError as error:
        log = get_log()
        mend = isinstance(error, ProviderMisbehaved) and not error.retryable
        write = log.error if mend else log.info if error.benign else log.warning
        kind = type(error).__name__
        # Whoever has to mend code needs to see where it raised.
        raised = error.__cause__ if isinstance(error, ProviderFaulty) else None
        write(
            "activity failed",
            **fields,
            kind=kind,
            retryable=error.retryable,
            error=str(error),
            exc_info=raised,
        )
        log.debug("cause of the error", cause=repr(error.__cause__))
        # A driver's error may quote the statement's parameters, which are rows: they must not enter history.
        error.__cause__ = None
        error.__suppress_context__ = True
        # It is logged above. Temporal keeps a few KB of an attempt's failure, and replaces a larger one.
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
    """Return the innermost frames: Temporal keeps a few KB of an attempt's failure, or drops it."""
    left = 0 if traceback is None else sum(1 for _ in walk_tb(traceback))
    while traceback is not None and left > _FRAMES:
        traceback, left = traceback.tb_next, left - 1
    return traceback


def not_logged_yet(record: logging.LogRecord) -> bool:
    """Filter the SDK's activity log: drop the traceback of what has been logged in a line of its own.

    Errors by `errors_translated`, a cancelled cycle by itself: the server no longer knows an attempt that was
    reset, and the SDK takes that for a failure.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ApplicationError | asyncio.CancelledError)
