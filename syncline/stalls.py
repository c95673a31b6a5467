"""Why a run does not continue, in a sentence, and the way out."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from shlex import quote
from typing import Final

from syncline.messages import Message
from syncline.task_queues import Poller, live

__all__ = [
    "TAKEN_WITHIN",
    "Stall",
    "StallKind",
    "changed_code",
    "mend",
    "no_worker",
    "not_taken",
    "reported",
    "waited",
]

TAKEN_WITHIN: Final = 3.0
"""Seconds within which a worker that is there has taken a task, also if it has just started."""


class StallKind(StrEnum):
    """What keeps a run from continuing."""

    TASK_FAILS = "task_fails"
    """Its workflow task fails: changed workflow code, an unknown type, an unreadable payload, a bug."""
    NO_WORKER = "no_worker"
    """No worker polls the task queue of what it waits for, or only workers of other versions do."""
    NOT_TAKEN = "not_taken"
    """Workers poll, or did so lately, and none has taken it: all are busy, or the last one is gone."""


class Stall(Message):
    """Why a run does not continue."""

    kind: StallKind
    task_queue: str
    since: datetime | None = None
    """Since when its workflow task fails, or its task waits; null if only Temporal's index tells of it."""
    attempt: int = 1
    problem: str
    """In a sentence, with how old the sign is."""
    fix: str
    """The way out."""


def reported(
    problems: Sequence[str], *, task_queue: str, workflow_id: str, run_id: str, workflow_type: str
) -> Stall | None:
    """Return what search attribute TemporalReportedProblems says: the server sets it after five failures."""
    cause = next((told.removeprefix("cause=") for told in problems if told.startswith("cause=")), None)
    if not problems:
        return None
    name = (cause or ", ".join(problems)).removeprefix("WorkflowTaskFailedCause")
    return Stall(
        kind=StallKind.TASK_FAILS,
        task_queue=task_queue,
        attempt=5,
        problem=f"Its workflow task has failed five times or more: {name}.",
        fix=changed_code(workflow_id, run_id)
        if name == "NonDeterministicError"
        else mend(workflow_id, run_id, workflow_type),
    )


def no_worker(
    found: Sequence[Poller], *, task_queue: str, since: datetime, version: str | None = None
) -> Stall | None:
    """Return why no worker takes a workflow task that waits since then; None if one may take it in a moment.

    `found` are the pollers of the queue; `version` is the one that the run is pinned to.
    """
    where = f"task queue '{task_queue}'"
    fitting = [one for one in found if one.version == version or (version is None and one.takes_new_runs)]
    waits = max(0.0, (datetime.now(UTC) - since).total_seconds())
    fix = "Start a worker (`python worker.py`): the run then continues by itself."
    if not found:
        problem = f"No worker polls {where}"
    elif not fitting:
        kinds = ", ".join(sorted({one.version or "unversioned" for one in found}))
        wanted = f"a run of version {version}" if version else "new runs"
        problem = f"Only workers that take no {wanted} poll {where} ({kinds})"
        fix = (
            f"Start a worker of version {version}, or end the run."
            if version
            else "Start a worker of the current version, or make one of these current: "
            "`temporal worker deployment set-current-version` (`syncline doctor` has the whole command)."
        )
    elif not live(fitting) or (
        waits > TAKEN_WITHIN and max(one.seen_at for one in fitting) < since
    ):  # an open poll would have taken it
        last = max(fitting, key=lambda one: one.seen_at)
        problem = (
            f"No worker polls {where} any longer: the last poll, {last.age:.0f} s ago, was of {last.identity}"
        )
    else:
        return None
    return Stall(
        kind=StallKind.NO_WORKER,
        task_queue=task_queue,
        since=since,
        problem=f"{problem}. It has waited for {waits:.0f} s.",
        fix=fix,
    )


def _terminate(workflow_id: str, run_id: str) -> str:
    """Return the command that ends a run at once."""
    return f"`temporal workflow terminate --workflow-id {quote(workflow_id)} --run-id {run_id} --reason …`"


def changed_code(workflow_id: str, run_id: str) -> str:
    """Return the ways out for a run whose workflow code has changed."""
    # Measured: a reset to the last workflow task replays the events that the changed code does not make.
    return (
        "The workflow code has changed since the run began. Deploy the code that it began on, and it "
        "continues by itself; or have it begin again on the present code: `temporal workflow reset "
        f"--workflow-id {quote(workflow_id)} --run-id {run_id} --type FirstWorkflowTask --reason …` (to "
        "LastWorkflowTask would meet the same change); or end it, if another will do its work: "
        f"{_terminate(workflow_id, run_id)}."
    )


def mend(workflow_id: str, run_id: str, workflow_type: str) -> str:
    """Return the ways out for a run whose workflow task fails otherwise."""
    return (
        f"Deploy workers that know workflow type {workflow_type} and read its payloads (release, codec and "
        "keys of whoever started it), or whose code is mended, and it continues by itself; else end it: "
        f"{_terminate(workflow_id, run_id)}."
    )


def not_taken(
    found: Sequence[Poller], task_queue: str, since: datetime, *, activity: str = "its workflow task"
) -> Stall:
    """Return what to say of a task that one of these pollers should have taken by now."""
    last = max(found, key=lambda one: one.seen_at)
    return Stall(
        kind=StallKind.NOT_TAKEN,
        task_queue=task_queue,
        since=since,
        problem=(
            f"No worker has taken {activity} from task queue '{task_queue}' for {waited(since):.0f} s: all "
            f"are busy, or gone. The last poll was {last.age:.0f} s ago, of {last.identity}."
        ),
        fix="Wait for a free worker, or start one more (`python worker.py`).",
    )


def waited(since: datetime) -> float:
    """Return the seconds since then."""
    return (datetime.now(UTC) - since).total_seconds()
