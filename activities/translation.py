"""Errors of the library as Temporal sees them: translated once, here."""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from syncline.errors import SynclineError
from syncline.logs import get_log

__all__ = ["errors_translated"]


@contextmanager
def errors_translated() -> Iterator[None]:
    """Raise ApplicationError in place of a SynclineError: its class is the type, and says if a retry helps.

    Any other exception passes: Temporal retries it.
    """
    try:
        yield
    except SynclineError as error:
        get_log().debug("error below the translated one", error=str(error), cause=repr(error.__cause__))
        # A driver's error may quote the statement's parameters, which are rows: those never enter history.
        error.__cause__ = None
        error.__suppress_context__ = True
        raise ApplicationError(
            str(error), type=type(error).__name__, non_retryable=not error.retryable
        ) from error
