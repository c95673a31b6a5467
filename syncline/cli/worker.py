"""`syncline worker`: the worker of the checkout in this folder."""

from syncline.cli.sentences import errors_as_sentences

__all__ = ["worker"]


@errors_as_sentences
def worker() -> None:
    """Run the worker: `python worker.py` of the checkout in this folder, until it is told to stop.

    It reads SYNCLINE_* and TEMPORAL_*. SIGTERM or Ctrl-C lets running cycles finish.
    """
    import os
    import sys
    from pathlib import Path

    from syncline.devstack.worker_process import find_worker

    script = find_worker(Path.cwd())
    # In the place of this process, so that signals and the exit status are the worker's own.
    os.execv(sys.executable, [sys.executable, str(script)])  # noqa: S606 # there is no shell to want
