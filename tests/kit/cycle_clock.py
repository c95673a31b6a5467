"""The clock by which a cycle spends its time, for tests whose cycles end early: seconds prove nothing on a busy machine."""

import time
from types import SimpleNamespace

import pytest

from syncline.engine import cycle

__all__ = ["CycleClock"]


class CycleClock:
    """The time of cycles from now on; it goes as ever, until a test puts it forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        monkeypatch.setattr(cycle, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + self._ahead))

    def spend(self, *_: object) -> None:
        """Put it forward by more than any cycle may take: the running one is out of time."""
        self._ahead += 10_000
