"""Child processes of the stack, real ones: ended whatever they do, restarted, given up on."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from syncline.devstack.processes import ChildProcess, ProcessIdentity, WorkerProcess, log_tail

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


async def start(tmp_path: Path, code: str) -> ChildProcess:
    """Start a Python process and wait until it said something."""
    child = await ChildProcess.start("a child", [sys.executable, "-c", code], log=tmp_path / "child.log")
    await asyncio.to_thread(wait_until, lambda: child.log.stat().st_size > 0)
    return child


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that is about to happen."""
    while not condition():
        time.sleep(0.02)


async def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = await start(tmp_path, STUBBORN)
    assert await child.stop(patience=0.2) is False
    assert child.returncode == -signal.SIGKILL


async def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    child = await start(tmp_path, STUBBORN)
    hurry = asyncio.Event()
    hurry.set()
    assert await asyncio.wait_for(child.stop(patience=60, hurry=hurry), 30) is False


async def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STUBBORN!r}])"
    child = await start(tmp_path, code)
    [grandchild] = psutil.Process(child.pid).children()
    identity = ProcessIdentity.of(grandchild.pid)
    assert identity is not None
    assert await child.stop(patience=5)
    await asyncio.to_thread(wait_until, lambda: identity.process() is None)


async def test_a_left_over_process_is_ended_with_its_family(tmp_path: Path) -> None:
    child = await start(tmp_path, STUBBORN)
    assert child.identity is not None
    await asyncio.to_thread(child.identity.end, patience=0.2)
    assert child.identity.process() is None
    assert await child.wait() == -signal.SIGKILL


def test_another_process_with_the_same_pid_is_left_alone() -> None:
    ourselves = ProcessIdentity.of(os.getpid())
    assert ourselves is not None
    ourselves.model_copy(update={"create_time": ourselves.create_time - 1}).end(patience=0)


async def test_a_worker_that_is_killed_is_started_again(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("import time; time.sleep(60)")
    worker = WorkerProcess(
        tmp_path / "worker.py", dict(os.environ), log=tmp_path / "worker.log", graceful_seconds=1
    )
    first = await worker.start()
    restarts: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    watching = asyncio.create_task(
        worker.watch(restarted=lambda status, child: restarts.put_nowait((status, child.pid)))
    )
    os.kill(first.pid, signal.SIGKILL)
    status, pid = await restarts.get()
    assert status == -signal.SIGKILL
    assert pid != first.pid
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert await worker.stop()


async def test_a_worker_that_dies_again_and_again_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('no such store')")
    worker = WorkerProcess(
        tmp_path / "worker.py", dict(os.environ), log=tmp_path / "worker.log", graceful_seconds=1
    )
    await worker.start()
    sentence = await worker.watch(restarted=lambda status, child: None)
    assert "died 4 times" in sentence
    assert sentence.endswith("  no such store")


def test_the_tail_of_a_log_that_is_not_there_says_so(tmp_path: Path) -> None:
    assert log_tail(tmp_path / "none.log") == "  (its log is empty)"
