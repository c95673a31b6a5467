"""Activities on Schedules: match them to the graph records, and set the cadence of adaptive graphs."""

import time

from temporalio import activity

from activities.errors import errors_translated
from activities.heartbeat import Heartbeater
from activities.metrics import record_intervals, record_reconciliation
from activities.run import run_identity
from syncline import names
from syncline.control.graphs import GraphRecords
from syncline.control.services import Services
from syncline.logs import get_log
from syncline.messages.sync import Reconciliation, ReconciliationProgress, SetCadenceRequest
from syncline.temporal.schedules.make import set_interval
from syncline.temporal.schedules.reconcile import reconcile

__all__ = ["ScheduleActivities"]


class ScheduleActivities:
    """Activities on Schedules, over one worker's services."""

    def __init__(self, services: Services, *, beat_seconds: float = 5.0) -> None:
        self._services = services
        self._beat_seconds = beat_seconds
        self._logged: dict[str, str] = {}
        self._logged_never_due: dict[str, str] = {}
        self._known: frozenset[str] = frozenset()

    @activity.defn(name=names.RECONCILE_SCHEDULES_ACTIVITY)
    async def reconcile_schedules(self) -> Reconciliation:
        """Make the Schedules on this worker's task queue match the graphs, and return the changes."""
        services = self._services
        started = time.monotonic()
        beat = Heartbeater[ReconciliationProgress](beat_seconds=self._beat_seconds)
        with errors_translated(activity=names.RECONCILE_SCHEDULES_ACTIVITY):
            async with beat:
                result = await reconcile(
                    activity.client(),
                    self._read_records,
                    task_queue=services.settings.task_queue,
                    progressed=beat,
                )
        record_reconciliation(services.meter, result, seconds=time.monotonic() - started)
        self._log(result)
        return result

    async def _read_records(self) -> GraphRecords:
        """Read all graph records, and record the intervals of the graphs as metrics."""
        services = self._services
        records = await services.graphs.records()
        found = frozenset([*(graph.slug for graph in records.valid), *records.invalid])
        record_intervals(services.meter, records.valid, gone=self._known - found)
        self._known = found
        return records

    @activity.defn(name=names.SET_CADENCE)
    async def set_cadence(self, request: SetCadenceRequest) -> bool:
        """Change the interval of the graph's Schedule; return whether the Schedule has it now.

        Only for the Schedule's newest run: one that was reset, or runs concurrently, has outdated state.
        """
        with errors_translated(graph=request.graph, activity=names.SET_CADENCE):
            run = run_identity()
            done = await set_interval(
                activity.client(),
                request.graph,
                every_seconds=request.every_seconds,
                fingerprint=request.fingerprint,
                run_id=run.run_id,
            )
        if not done:
            get_log().info(
                "cadence not set: the record has changed, or the run is not the Schedule's newest",
                graph=request.graph,
                run_id=run.run_id,
            )
        return done

    def _log(self, result: Reconciliation) -> None:
        log = get_log()
        counts = result.model_dump(include={"created", "updated", "deleted", "unchanged", "refusals"})
        (log.info if result.changed else log.debug)("schedules reconciled", **counts)
        for event, found, logged in (
            ("schedule not reconciled", result.refused, self._logged),
            ("schedule never due", result.never_due_graphs, self._logged_never_due),
        ):
            for slug, problem in found.items():
                # Every reconciliation finds it again: WARNING once, then DEBUG.
                write = log.debug if logged.get(slug) == problem else log.warning
                write(event, graph=slug, problem=problem)
        self._logged, self._logged_never_due = dict(result.refused), dict(result.never_due_graphs)
