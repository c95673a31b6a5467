"""The base of all errors; `syncline.errors` has the hierarchy, and everything is imported from there."""

from typing import ClassVar

__all__ = ["SynclineError"]


class SynclineError(Exception):
    """Base of every error that Syncline raises on purpose: what happened to what, and what mends it.

    `problem` and `fix` are parts of the message, or all of it; other fields have the names in it.
    """

    problem: str
    fix: str | None = None
    """What mends it, in a sentence, where the error knows one."""

    retryable: ClassVar[bool] = False
    benign: ClassVar[bool] = False
    """Whether it belongs to normal operation: a rolling deployment, a mistyped name. To Temporal it is
    BENIGN, so the SDK does not count it among the failures that somebody may be paged for."""
    retry_after_seconds: float | None = None
    """How long a retry has to wait to make sense, where that is known."""

    def __init__(self, problem: str = "", *, fix: str | None = None) -> None:
        self.problem = problem
        if fix is not None:
            self.fix = fix
        super().__init__(problem if fix is None else f"{problem} {fix}")
