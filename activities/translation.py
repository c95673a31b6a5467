"""Errors of the library as Temporal sees them: translated once, here, and told once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from syncline.errors import SynclineError
from syncline.logs import get_log

__all__ = ["errors_translated", "not_told_yet"]


@contextmanager
def errors_translated(**fields: object) -> Iterator[None]:
    """Raise ApplicationError in place of a SynclineError: its class is the type, and says if a retry helps.

    It is logged in one line with `fields`. Any other exception passes: Temporal retries it, and its traceback
    is logged.
    """
    try:
        yield
    except SynclineError as error:
        kind = type(error).__name__
        log = get_log()
        log.warning("activity failed", **fields, kind=kind, retryable=error.retryable, error=str(error))
        log.debug("below that error", cause=repr(error.__cause__))
        # A driver's error may quote the statement's parameters, which are rows: those never enter history.
        error.__cause__ = None
        error.__suppress_context__ = True
        raise ApplicationError(str(error), type=kind, non_retryable=not error.retryable) from error


def not_told_yet(record: logging.LogRecord) -> bool:
    """Filter the SDK's log of activities: what `errors_translated` told in one line needs no traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ApplicationError)
