"""What the graphs of a Temporal namespace are doing, read from Temporal alone.

Schedules and closed runs are read without a worker: a run's result is in its history. So the board is right
also while the worker is down, which is when somebody looks at it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleInfo,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowFailureError,
)
from temporalio.service import RPCError, RPCStatusCode

from syncline import names
from syncline.handed_on import handed_on
from syncline.messages import HandedOn, SyncGraphResult
from syncline.schedules import list_schedule_ids
from syncline.search_attributes import FAILURES, PROVIDER

__all__ = ["Board", "ClosedRun", "GraphRow"]


@dataclass(frozen=True, kw_only=True)
class ClosedRun:
    """One run that ended: with a result, or with a failure."""

    run_id: str
    started_at: datetime
    closed_at: datetime
    status: str
    """Temporal's word for how it ended: completed, failed, timed_out, terminated, …"""
    provider: str | None = None
    """Search attribute: the provider, or what stands for the built-in engine."""
    failures: int | None = None
    """Search attribute: dead-lettered rows and failed tables."""
    result: SyncGraphResult | None = None
    failure: str | None = None
    failure_handed: HandedOn | None = None
    """What the failure hands on to the next run."""

    @property
    def handed(self) -> HandedOn | None:
        """What the run hands on, however it ended."""
        return self.failure_handed if self.result is None else HandedOn.of(self.result)

    @property
    def drained(self) -> bool:
        """Whether the run succeeded and left nothing pending."""
        return self.result is not None and self.result.result.drained

    @property
    def outcome(self) -> str:
        """How it ended, in one word: the cycle's status when there is a result."""
        return str(self.result.result.status) if self.result is not None else self.status


@dataclass(frozen=True, kw_only=True)
class GraphRow:
    """One graph as the board shows it."""

    slug: str
    paused: bool = False
    running_since: datetime | None = None
    last: ClosedRun | None = None
    next_at: datetime | None = None


class Board:
    """Reads the rows of every scheduled graph."""

    def __init__(self, client: Client, graphs: Sequence[str]) -> None:
        self._client = client
        self._declared = tuple(graphs)
        self._closed: dict[str, ClosedRun] = {}

    async def read(self) -> list[GraphRow]:
        """Return a row per graph: the declared ones in their order, then others that have a Schedule."""
        prefix = names.sync_schedule_id("")
        schedules = await list_schedule_ids(self._client)
        listed = sorted(id_.removeprefix(prefix) for id_ in schedules if id_.startswith(prefix))
        return [await self._row(slug) for slug in dict.fromkeys([*self._declared, *listed])]

    async def _row(self, slug: str) -> GraphRow:
        try:
            described = await self._client.get_schedule_handle(names.sync_schedule_id(slug)).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return GraphRow(slug=slug)
            raise
        running_since, last = await self._newest(slug, described.info)
        return GraphRow(
            slug=slug,
            paused=described.schedule.state.paused,
            running_since=running_since,
            last=last,
            next_at=next(iter(described.info.next_action_times), None),
        )

    async def _newest(self, slug: str, info: ScheduleInfo) -> tuple[datetime | None, ClosedRun | None]:
        """Return since when a run is open, if one is, and the newest closed run."""
        running_since = None
        for recent in reversed(info.recent_actions):
            action = recent.action
            if not isinstance(action, ScheduleActionExecutionStartWorkflow):
                continue
            run_id = action.first_execution_run_id
            known = self._closed.get(slug)
            if known is not None and known.run_id == run_id:
                return running_since, known
            try:
                run = await self._client.get_workflow_handle(action.workflow_id, run_id=run_id).describe()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:  # past the namespace's retention
                    continue
                raise
            if run.status is WorkflowExecutionStatus.RUNNING:
                running_since = run.start_time
                continue
            self._closed[slug] = await self._read_closed(run)
            return running_since, self._closed[slug]
        return running_since, self._closed.get(slug)

    async def _read_closed(self, run: WorkflowExecutionDescription) -> ClosedRun:
        handle = self._client.get_workflow_handle(run.id, run_id=run.run_id, result_type=SyncGraphResult)
        result, failure, handed = None, None, None
        try:
            result = await handle.result(follow_runs=False)
        except WorkflowFailureError as error:
            failure, handed = _deepest(error), handed_on(error.cause)
        except (ValidationError, RuntimeError, TypeError) as error:
            failure = f"its result cannot be read: {' '.join(str(error).split())}"
        return ClosedRun(
            run_id=run.run_id,
            started_at=run.start_time,
            closed_at=run.close_time or datetime.now(UTC),
            status=run.status.name.lower() if run.status is not None else "unknown",
            provider=run.typed_search_attributes.get(PROVIDER),
            failures=run.typed_search_attributes.get(FAILURES),
            result=result,
            failure=failure,
            failure_handed=handed,
        )


def _deepest(error: BaseException) -> str:
    """Return the message of the failure at the bottom of the chain: what happened, not who reported it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
