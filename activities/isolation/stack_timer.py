"""A timer that writes a thread's stack although the thread keeps Python's lock. Standard library alone."""

import ctypes
import faulthandler
import signal
import sys
import threading
from typing import Final

__all__ = ["StackTimer"]

_STDERR: Final = 2
"""File descriptor of stderr: `sys.stderr` may be replaced."""
_SIGEV_THREAD_ID: Final = 4  # linux/signal.h
_SIGEV_SIZE: Final = 64
_SIGEV_USED: Final = ctypes.sizeof(ctypes.c_void_p) + 3 * ctypes.sizeof(ctypes.c_int)
_CLOCK_MONOTONIC: Final = 1
_lock = threading.Lock()


class _Event(ctypes.Structure):
    """`struct sigevent` of Linux, used fields only."""

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
    """Writes one thread's stack to a descriptor unless pushed back in time. Linux only, otherwise a no-op.

    `native_id` is that of `threading.get_native_id()`. Close the timer when the thread ends.
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
        """Postpone the dump to `seconds` from now."""
        whole, part = divmod(seconds, 1)
        self._set(_Spec(first_s=int(whole), first_ns=int(part * 1e9)))

    def close(self) -> None:
        """Cancel the dump."""
        if self._timer is not None:
            timer, self._timer = self._timer, None
            self._libc.timer_delete(timer)

    def _set(self, spec: _Spec) -> None:
        if self._timer is not None:
            self._libc.timer_settime(self._timer, 0, ctypes.byref(spec), None)
