"""Failures as Temporal keeps them: a sentence for what is raised on purpose, frames for bugs alone."""

from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ActivityError, ApplicationError

from syncline.error_base import SynclineError

__all__ = ["EncodedFailureConverter", "SentenceFailureConverter"]

_CYCLE_FAILED = "CycleFailed"


class SentenceFailureConverter(DefaultFailureConverter):
    """Leaves out the frames, and the cause that says the same, of what is raised on purpose.

    Its message says what happened and what to do; the worker's log has the rest. An operator who reads a
    failure in the Web UI would else read twenty lines of our files first.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Fill the failure from the exception."""
        cause = exception.__cause__
        ends_a_run = isinstance(exception, ApplicationError) and isinstance(cause, ActivityError)
        if not ends_a_run and not _on_purpose(exception):
            super().to_failure(exception, payload_converter, failure)
            return
        kept = exception.__traceback__, exception.__cause__, exception.__suppress_context__
        exception.__traceback__ = None
        if not ends_a_run:  # the cause of which says who reported it
            exception.__cause__ = None  # which also suppresses the context
        try:
            super().to_failure(exception, payload_converter, failure)
        finally:
            exception.__traceback__, exception.__cause__, exception.__suppress_context__ = kept


class EncodedFailureConverter(SentenceFailureConverter):
    """The same where a codec encodes what failures say."""

    def __init__(self) -> None:
        """Have messages and stack traces encoded."""
        super().__init__(encode_common_attributes=True)


def _on_purpose(exception: BaseException) -> bool:
    if isinstance(exception, ApplicationError):
        return exception.type == _CYCLE_FAILED or isinstance(exception.__cause__, SynclineError)
    return isinstance(exception, SynclineError)
