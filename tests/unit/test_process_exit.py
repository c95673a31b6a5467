"""A process that used the Temporal SDK ends with its status, its output and its exit handlers."""

import subprocess
import sys

import pytest

ENDING = """
import atexit, sys
{imports}
from syncline.process_exit import end_process
atexit.register(lambda: print("handled"))
print("printed")
end_process(3)
"""


@pytest.mark.parametrize("imports", ["", "import temporalio.bridge.temporal_sdk_bridge"])
def test_nothing_that_was_printed_is_lost(imports: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(imports=imports)], capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stdout == "printed\nhandled\n"
    assert done.stderr == ""
