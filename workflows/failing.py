"""What fails a run: at once, instead of retrying its workflow task for ever; and what its activities say."""

from typing import Final

from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout

from syncline.errors import ProviderGone, SynclineError
from syncline.messages import SyncResult

__all__ = ["FAILS_A_RUN", "unanswered", "what_failed"]

_LONGEST: Final = 10_000
"""Characters of what a run fails with: hundreds of tables can have failed."""

FAILS_A_RUN: Final[tuple[type[BaseException], ...]] = (
    # Input that is refused.
    SynclineError,
    # Bugs. Not `Exception`: that takes in NondeterminismError, and then a replay test waits instead of
    # failing.
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def unanswered(error: ActivityError, *, again: bool) -> bool:
    """Return whether nobody took a routed cycle, so that it is to be asked again who has the provider.

    Somebody who polls the queue without having the provider contradicts the resolution, and is believed once.
    """
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type == ProviderGone.__name__ and not again
    return isinstance(cause, ActivityTimeout) and cause.type is TimeoutType.SCHEDULE_TO_START


def what_failed(slug: str, result: SyncResult) -> str:
    """Return why a cycle failed: what its tables say, one after the other."""
    errors = [f"{table.table}: {table.error}" for table in result.tables if table.error]
    if not errors:
        return f"The cycle of graph '{slug}' failed with {result.failures} failures; no table says why."
    told = f"{len(errors)} of {len(result.tables)} tables of graph '{slug}' failed. " + "; ".join(errors)
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"
