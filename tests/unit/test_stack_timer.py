"""A thread that keeps Python's lock is named, and the process outlives being looked at."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="timers for one thread are Linux's")

HELD = """
import re, threading, time
from activities.isolation.stack_timer import StackTimer

def keeps_the_lock():
    re.match("(a+)+$", "a" * 23 + "b")

def room():
    ready.set()
    go.wait()
    keeps_the_lock()

ready, go = threading.Event(), threading.Event()
thread = threading.Thread(target=room)
thread.start()
ready.wait()
timer = StackTimer(thread.native_id)
timer.push_back(0.1)
go.set()
thread.join()
timer.close()
print("alive")
"""

# What crashed within seconds where `dump_traceback_later` read all threads: they come and go while it does.
COMING_AND_GOING = """
import threading, time
from activities.isolation.stack_timer import StackTimer

def come_and_go():
    while not over:
        threads = [threading.Thread(target=sum, args=(range(50),)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

over = []
others = threading.Thread(target=come_and_go)
timer = StackTimer(threading.get_native_id())
others.start()
for _ in range(50):
    timer.push_back(0.005)
    time.sleep(0.02)
over.append(True)
others.join()
timer.close()
print("alive")
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT
    )


def test_stack_timer_names_the_code_that_keeps_the_lock() -> None:
    done = run(HELD)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    assert "in keeps_the_lock" in done.stderr


def test_stack_timer_survives_threads_that_come_and_go() -> None:
    done = run(COMING_AND_GOING)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]
    assert "most recent call first" in done.stderr


def test_stack_timer_writes_nothing_once_closed() -> None:
    done = run(
        "import threading, time\n"
        "from activities.isolation.stack_timer import StackTimer\n"
        "timer = StackTimer(threading.get_native_id())\n"
        "timer.push_back(0.05); timer.push_back(60); time.sleep(0.2); timer.push_back(0.1); timer.close()\n"
        "time.sleep(0.3)"
    )
    assert (done.returncode, done.stderr) == (0, "")
