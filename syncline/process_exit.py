"""Exit of a process that has used a Temporal client, without the crash that a normal exit risks.

The SDK's threads may still hold the interpreter's lock when a short-lived process finalizes the interpreter;
it then aborts with "PyGILState_Release" (temporalio/sdk-python#300; seen as SIGABRT in `future_into_py` of
thread `tokio-rt-worker`, silent if stderr is discarded). So such a process runs its exit handlers, flushes
its output, and skips finalization.
"""

import atexit
import os
import sys
from typing import NoReturn

__all__ = ["end_process", "leave", "risks_a_crash"]

_BRIDGE = "temporalio.bridge.temporal_sdk_bridge"


def end_process(status: int) -> NoReturn:
    """End this process with `status`, after running exit handlers and flushing output."""
    if not risks_a_crash():
        sys.exit(status)
    atexit._run_exitfuncs()  # noqa: SLF001 - the interpreter would call it
    leave(status)


def risks_a_crash() -> bool:
    """Return whether this process has threads of the SDK, so that a normal exit may crash."""
    return _BRIDGE in sys.modules


def leave(status: int) -> NoReturn:
    """End this process with `status` after flushing output, without exit handlers."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the reading end is closed
            continue
    os._exit(status)
