"""Output that may end before the stack does: its window is closed, its pipe has no reader any more."""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

__all__ = ["EndingOutput"]


class EndingOutput(io.TextIOBase):
    """A stream that is told of its end instead of raising it; what is written afterwards goes nowhere.

    Whoever stops something while it prints would leave the rest of it running.
    """

    def __init__(self, stream: TextIO, ended: Callable[[], object]) -> None:
        """`ended` is called once, by the write that fails."""
        self._stream, self._ended, self._open = stream, ended, True

    @property
    def encoding(self) -> str:  # type: ignore[override] # of the stream, which has one
        """That of the stream."""
        return self._stream.encoding

    def write(self, text: str, /) -> int:
        """Write, if somebody reads."""
        if self._open:
            try:
                self._stream.write(text)
            except OSError:
                self._end()
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered, if somebody reads."""
        if self._open:
            try:
                self._stream.flush()
            except OSError:
                self._end()

    def fileno(self) -> int:
        """Return the stream's."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def _end(self) -> None:
        self._open = False
        # The interpreter flushes the stream at its exit, and would complain.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._ended()
