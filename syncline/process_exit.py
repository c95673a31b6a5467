"""Ending a process that has used a Temporal client, without the crash that an ordinary exit risks.

The SDK's threads may still hold the interpreter's lock when a short-lived process begins to take the
interpreter down; it then aborts with "PyGILState_Release" (temporalio/sdk-python#300). So such a process does
what an exit owes to others, and leaves the interpreter as it is.
"""

import atexit
import os
import sys
from typing import NoReturn

__all__ = ["end_process"]

_BRIDGE = "temporalio.bridge.temporal_sdk_bridge"


def end_process(status: int) -> NoReturn:
    """End this process with `status`, after exit handlers and with everything printed."""
    if _BRIDGE not in sys.modules:
        sys.exit(status)
    atexit._run_exitfuncs()  # noqa: SLF001 - the interpreter would call it
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # whoever read it is gone
            continue
    os._exit(status)
