"""What fails a run at once, instead of retrying its workflow task for ever."""

from typing import Final

from syncline.errors import SynclineError

__all__ = ["FAILS_A_RUN"]

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
