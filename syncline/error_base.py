"""The base of all errors; `syncline.errors` has the hierarchy, and everything is imported from there."""

from typing import ClassVar

__all__ = ["SynclineError"]


class SynclineError(Exception):
    """Base of every error that Syncline raises on purpose."""

    retryable: ClassVar[bool] = False
    benign: ClassVar[bool] = False
    """Whether it belongs to normal operation: a rolling deployment, a mistyped name. To Temporal it is
    BENIGN, so the SDK does not count it among the failures that somebody may be paged for."""
    retry_after_seconds: float | None = None
    """How long a retry has to wait to make sense, where that is known."""
