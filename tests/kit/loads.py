"""Loads of a few rows that are read in turns, as those of millions are; and cycles that end in the middle of one."""

import pytest

from syncline.engine import first_load, live_lane, owed
from syncline.engine.live_lane import LoadDrain
from tests.kit.cycle_clock import CycleClock

__all__ = ["end_after_turns", "every_load"]


def every_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every table that is read from the start be a load, each turn of which is one batch, step or page."""
    monkeypatch.setattr(first_load, "WORTH_ROWS", 1)
    monkeypatch.setattr(first_load, "_SECONDS", 0.0)
    monkeypatch.setattr(live_lane, "_SECONDS", 0.0)
    monkeypatch.setattr(owed, "_AT_ONCE", 0)
    monkeypatch.setattr(owed, "_PAGE", 3)


def end_after_turns(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """Let cycles be out of time after so many turns of loads."""
    clock, run_loads, left = CycleClock(monkeypatch), LoadDrain.run_loads, turns

    async def ran(self: LoadDrain, *given: object) -> None:
        nonlocal left
        await run_loads(self, *given)  # type: ignore[arg-type]
        left -= 1
        if left <= 0:
            clock.spend()

    monkeypatch.setattr(LoadDrain, "run_loads", ran)
