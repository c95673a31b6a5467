"""How rarely an adaptive graph is run: a function of how long it has been idle, and of nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from syncline.control.schedule_spec import ScheduleSpec
from syncline.messages.sync import (
    Cadence,
    CadenceRules,
    CycleStatus,
    SyncResult,
    TableProgress,
    VectorProgress,
)
from workflows.cadence import following

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
RULES = CadenceRules(intervals=(60, 120, 300, 900), fingerprint="a")


def after(*minutes: float, rules: CadenceRules = RULES, begin: Cadence | None = None) -> Cadence:
    """The cadence after idle runs so many minutes after noon."""
    cadence = begin
    for minute in minutes:
        cadence = following(cadence, rules, idle=True, now=NOON + timedelta(minutes=minute))
    assert cadence is not None
    return cadence


@pytest.mark.parametrize(
    ("minutes", "seconds"),
    [(0, 60), (1, 60), (2, 120), (4.9, 120), (5, 300), (14, 300), (15, 900), (600, 900)],
)
def test_a_graph_is_run_as_rarely_as_it_has_been_idle(minutes: float, seconds: int) -> None:
    assert after(0, minutes).every_seconds == seconds


def test_a_step_says_since_when_and_why_and_keeps_that_while_it_stays() -> None:
    cadence = after(0, 1, 2, 3, 4)
    assert (cadence.since, cadence.idle_since) == (NOON + timedelta(minutes=2), NOON)
    assert cadence.reason == (
        "Slowed down: idle since 2026-01-31 12:00:00 UTC. A change puts it back to its base."
    )


def test_a_change_puts_it_back_to_its_base() -> None:
    back = following(after(0, 20), RULES, idle=False, now=NOON + timedelta(minutes=21))
    assert (back.every_seconds, back.idle_since) == (60, None)
    assert after(22, 23, begin=back).every_seconds == 60


def test_another_record_begins_at_its_base_again() -> None:
    other = RULES.model_copy(update={"fingerprint": "b", "intervals": (30, 900)})
    cadence = after(20, begin=after(0, 16), rules=other)
    assert (cadence.every_seconds, cadence.base_seconds) == (30, 30)
    assert cadence.idle_since == NOON + timedelta(minutes=20)


def test_nothing_slows_down_while_nobody_would_hear() -> None:
    unheard = CadenceRules(intervals=(60,), fingerprint="a", unheard="no worker listens to write-db 'write'")
    cadence = after(21, begin=after(0, 20), rules=unheard)
    assert cadence.every_seconds == 60
    assert cadence.reason == (
        "At its base, because a change would not be announced: no worker listens to write-db 'write'."
    )


@pytest.mark.parametrize(
    ("spec", "intervals", "words"),
    [
        ({}, (60,), "every 60 s"),
        ({"adaptive": True}, (60, 120, 300, 900), "every 60 to 900 s"),
        (
            {"adaptive": True, "every_seconds": 300, "cadence": (900, 60, 600)},
            (300, 600, 900),
            "every 300 to 900 s",
        ),
        ({"adaptive": True, "every_seconds": 3600}, (3600,), "every 3600 s"),
        ({"cron": "@hourly", "notify": False}, (60,), "@hourly, not notified"),
    ],
)
def test_a_record_says_which_intervals_there_are(
    spec: dict[str, object], intervals: tuple[int, ...], words: str
) -> None:
    schedule = ScheduleSpec.model_validate(spec)
    assert (schedule.intervals, schedule.in_words) == (intervals, words)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"adaptive": True, "notify": False}, "adaptive needs notify"),
        ({"adaptive": True, "cron": "@hourly"}, "adaptive needs an interval"),
        ({"cadence": (0,)}, "greater than or equal to 1"),
    ],
)
def test_a_record_that_would_delay_changes_is_refused(spec: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ScheduleSpec.model_validate(spec)


@pytest.mark.parametrize(
    "other",
    [
        {"status": CycleStatus.BUDGET_SPENT},
        {"status": CycleStatus.ALREADY_RUNNING},
        {"status": CycleStatus.VECTORS_DELAYED},
        {"owes": True},
        {"failures": 1},
        {"tables": (TableProgress(table="nodes", captured=1),)},
        {"tables": (TableProgress(table="nodes", deletes=1),)},
        {"tables": (TableProgress(table="nodes", links=1),)},
        {"vectors": VectorProgress(upserted=1)},
    ],
)
def test_a_cycle_that_did_something_or_owes_something_is_not_idle(other: dict[str, object]) -> None:
    drained = SyncResult(
        status=CycleStatus.DRAINED, tables=(TableProgress(table="nodes", parked=3),), parked=3
    )
    assert drained.idle
    assert not drained.model_copy(update=other).idle
