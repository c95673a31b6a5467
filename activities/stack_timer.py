"""Stack timer: a thread that stood still for too long writes its own stack, while Python's lock is held too.

`faulthandler.dump_traceback_later` writes the stacks of all threads from a thread that holds no lock, and
crashes where threads come and go meanwhile, as those of Temporal's SDK do (a segmentation fault within
seconds, on CPython 3.11). Here the kernel interrupts the very thread that is to be shown, so its stack cannot
change while it is read.
"""

import ctypes
import faulthandler
import signal
import sys
import threading
from typing import Final

__all__ = ["StackTimer"]

_STDERR: Final = 2
"""The descriptor: `sys.stderr` may be anything."""
_SIGEV_THREAD_ID: Final = 4  # linux/signal.h
_SIGEV_SIZE: Final = 64
_SIGEV_USED: Final = ctypes.sizeof(ctypes.c_void_p) + 3 * ctypes.sizeof(ctypes.c_int)
_CLOCK_MONOTONIC: Final = 1
_lock = threading.Lock()


class _Event(ctypes.Structure):
    """`struct sigevent` of Linux, as far as it is used."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread_id", ctypes.c_int),
        (
            "rest",
            ctypes.c_char * (_SIGEV_SIZE - ctypes.sizeof(ctypes.c_void_p) - 3 * ctypes.sizeof(ctypes.c_int)),
        ),
    )


class _Spec(ctypes.Structure):
    """`struct itimerspec`: interval, then value, each as seconds and nanoseconds."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


class StackTimer:
    """Writes one thread's stack to a descriptor unless it is pushed back in time. Linux only; else a no-op.

    `native_id` is the thread's, as `threading.get_native_id()` gives it. Close the timer with the thread.
    """

    def __init__(self, native_id: int, *, descriptor: int = _STDERR) -> None:
        self._timer: ctypes.c_void_p | None = None
        if sys.platform != "linux":
            return
        number = signal.SIGRTMIN + 3
        with _lock:
            faulthandler.register(number, file=descriptor, all_threads=False)
        event = _Event(number=number, notify=_SIGEV_THREAD_ID, thread_id=native_id)
        timer = ctypes.c_void_p()
        self._libc = ctypes.CDLL(None, use_errno=True)
        if self._libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
            self._timer = timer

    def push_back(self, seconds: float) -> None:
        """Write the stack that many seconds from now, instead of when it was due."""
        whole, part = divmod(seconds, 1)
        self._set(_Spec(first_s=int(whole), first_ns=int(part * 1e9)))

    def close(self) -> None:
        """Write nothing any more."""
        if self._timer is not None:
            timer, self._timer = self._timer, None
            self._libc.timer_delete(timer)

    def _set(self, spec: _Spec) -> None:
        if self._timer is not None:
            self._libc.timer_settime(self._timer, 0, ctypes.byref(spec), None)
