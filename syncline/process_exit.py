"""Ending a process that has used a Temporal client, without the crash that an ordinary exit risks.

The SDK's threads may still hold the interpreter's lock when a short-lived process begins to take the
interpreter down; it then aborts with "PyGILState_Release" (temporalio/sdk-python#300; seen as SIGABRT in
`future_into_py` of thread `tokio-rt-worker`, and without a word where stderr goes nowhere). So such a process
does what an exit owes to others, and leaves the interpreter as it is.
"""

import atexit
import os
import sys
from typing import NoReturn

__all__ = ["end_process", "leave", "risks_a_crash"]

_BRIDGE = "temporalio.bridge.temporal_sdk_bridge"


def end_process(status: int) -> NoReturn:
    """End this process with `status`, after exit handlers and with everything printed."""
    if not risks_a_crash():
        sys.exit(status)
    atexit._run_exitfuncs()  # noqa: SLF001 - the interpreter would call it
    leave(status)


def risks_a_crash() -> bool:
    """Return whether this process has threads of the SDK, so that an ordinary exit may crash."""
    return _BRIDGE in sys.modules


def leave(status: int) -> NoReturn:
    """End this process with `status` and everything printed, without exit handlers."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # whoever read it is gone
            continue
    os._exit(status)
