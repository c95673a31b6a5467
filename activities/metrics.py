"""Recording of metrics: cycles, reconciliations, verifications; and the `Meter` over the Temporal runtime."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TypeVar

from temporalio.common import (
    MetricCounter,
    MetricGaugeFloat,
    MetricHistogramFloat,
    MetricMeter,
)
from temporalio.exceptions import ApplicationError

from syncline import metrics, names
from syncline.control.graphs import Graph
from syncline.errors import ProviderInvalid, ProviderMisbehaved
from syncline.logs import get_log
from syncline.messages.base import GraphStatus
from syncline.messages.sync import CycleStatus, OpenWriter, Reconciliation, SyncResult
from syncline.messages.verification import Verification
from syncline.provider import Meter
from syncline.registry import Registry

__all__ = [
    "TemporalMeter",
    "record_cycle",
    "record_cycle_error",
    "record_fallback",
    "record_held",
    "record_intervals",
    "record_providers",
    "record_reconciliation",
    "record_verification",
]

InstrumentT = TypeVar("InstrumentT", MetricCounter, MetricGaugeFloat, MetricHistogramFloat)


class TemporalMeter:
    """`syncline.provider.Meter` over the Temporal runtime, so that one endpoint serves all metrics.

    Thread-safe, like the runtime: an instrument created by two threads at once is one metric. Every name
    gets the prefix `syncline_`. A plugin's metric with the name of a declared metric, but another type or
    other labels, is not recorded; this is logged once.
    """

    def __init__(self, meter: MetricMeter) -> None:
        self._meter = meter
        self._counters: dict[str, MetricCounter] = {}
        self._gauges: dict[str, MetricGaugeFloat] = {}
        self._histograms: dict[str, MetricHistogramFloat] = {}
        self._refused: set[str] = set()

    def count(self, name: str, value: int, **attributes: str) -> None:
        """Add `value` (>= 0) to the counter `name`."""
        if self._free(name, metrics.Counter, attributes):
            _instrument(self._counters, name, self._meter.create_counter).add(value, attributes)

    def gauge(self, name: str, value: float, **attributes: str) -> None:
        """Set the gauge `name`."""
        if self._free(name, metrics.Gauge, attributes):
            _instrument(self._gauges, name, self._meter.create_gauge_float).set(value, attributes)

    def observe(self, name: str, value: float, **attributes: str) -> None:
        """Record `value` in the histogram `name`."""
        if self._free(name, metrics.Histogram, attributes):
            _instrument(self._histograms, name, self._meter.create_histogram_float).record(value, attributes)

    def _free(self, name: str, kind: type[metrics.Metric], labels: Mapping[str, str]) -> bool:
        declared = metrics.DECLARED.get(name)
        if declared is None or (isinstance(declared, kind) and labels.keys() == set(declared.labels)):
            return True
        if name not in self._refused:
            self._refused.add(name)
            get_log().warning(
                "metric not recorded",
                metric=name,
                problem=f"'{name}' is a {declared.type} of Syncline; choose another name",
            )
        return False


def _instrument(
    known: dict[str, InstrumentT], name: str, create: Callable[[str, str | None, str | None], InstrumentT]
) -> InstrumentT:
    if name not in known:
        declared = metrics.DECLARED.get(name)
        described = (declared.help, declared.unit) if declared else (None, None)
        known[name] = create(metrics.PREFIX + name, *described)
    return known[name]


def record_cycle(
    meter: Meter, result: SyncResult, *, graph: str, provider: str, fallback_since: float | None
) -> None:
    """Record a cycle that returned.

    `fallback_since` is when the current fallback outage began, in unix time: 0 while a provider serves the
    graph, None if this run does not know.
    """
    labels = {"graph": graph, "provider": provider}
    metrics.CYCLES.add(meter, 1, **labels, status=result.ended_as)
    metrics.CYCLE_SECONDS.observe(meter, result.duration_seconds, **labels)
    if result.status is CycleStatus.ALREADY_RUNNING:
        # It has read nothing: the metrics of the other cycle remain valid, if there is one.
        if result.unowned:
            metrics.LAG.set(meter, result.lag_seconds if result.lag_known else math.nan, graph=graph)
        if result.blocked:
            metrics.BLOCKED_TIMESTAMP.set(meter, time.time(), graph=graph)
        return
    metrics.ROWS.add(meter, result.rows, **labels)
    metrics.DELETES.add(meter, sum(table.deletes for table in result.tables), **labels)
    metrics.LINKS.add(meter, result.links, **labels)
    metrics.FAILURES.add(meter, result.failures, **labels)
    metrics.LINGERED_PASSES.add(meter, result.lingered_passes, graph=graph)
    done = result.vectors
    for vectors in (done,) if done.second is None else (done, done.second):
        metrics.VECTORS_UPSERTED.add(meter, vectors.upserted, **labels)
        metrics.VECTORS_DELETED.add(meter, vectors.deleted, **labels)
        metrics.TEXTS_EMBEDDED.add(meter, vectors.embedded, **labels)
    _record_embedding(meter, result, **labels)
    # Gauges are labelled by graph only: with the provider as a label, a graph that changed providers would
    # keep showing the last values of the old one.
    now = time.time()
    metrics.CYCLE_TIMESTAMP.set(meter, now, graph=graph)
    if result.status is not CycleStatus.FAILED:
        metrics.LAST_SUCCESS.set(meter, now, graph=graph)
    metrics.LAG.set(meter, result.lag_seconds if result.lag_known else math.nan, graph=graph)
    metrics.MAX_LAG.set(meter, result.max_lag_seconds or 0, graph=graph)
    metrics.OLDEST_WRITER.set(meter, _age(result.oldest_writer), graph=graph)
    metrics.PENDING_TABLES.set(meter, sum(not table.drained for table in result.tables), graph=graph)
    metrics.PARKED.set(meter, result.parked, graph=graph)
    metrics.NEW_COLUMNS.set(meter, len(result.new_columns), graph=graph)
    metrics.REMOVAL_WITHHELD.set(meter, sum(each.rows for each in result.withheld), graph=graph)
    metrics.KEYS_OWED.set(meter, sum(each.kind != "counts" for each in result.owed), graph=graph)
    metrics.DEAD_LETTERS.set(meter, result.dead_letters, graph=graph)
    metrics.OUTBOX_PENDING.set(meter, result.vectors.pending, graph=graph)
    metrics.VECTORS_REFUSED.set(meter, result.vectors.refused, graph=graph)
    record_fallback(meter, graph=graph, provider=provider, fallback_since=fallback_since)


def _record_embedding(meter: Meter, result: SyncResult, *, graph: str, provider: str) -> None:
    metrics.EMBEDDING_BUDGET_SPENT.set(meter, float(result.vectors.budget_spent), graph=graph)
    used = result.embedding
    if used is None:
        return
    metrics.EMBEDDING_TOKENS.add(meter, used.tokens, graph=graph, provider=provider)
    metrics.EMBEDDING_REQUESTS.add(meter, used.requests, graph=graph, provider=provider)
    metrics.EMBEDDING_REFUSED.add(meter, used.refused, graph=graph, provider=provider)
    metrics.EMBEDDING_BUDGET.set(meter, float(used.budget or 0), graph=graph)
    if used.today is not None:
        metrics.EMBEDDING_TODAY.set(meter, float(used.today), graph=graph)


def record_fallback(meter: Meter, *, graph: str, provider: str, fallback_since: float | None) -> None:
    """Record whether a cycle ran in fallback, returned or not; `fallback_since` as in `record_cycle`."""
    metrics.FALLBACK.set(meter, float(provider == names.FALLBACK_PROVIDER), graph=graph)
    if fallback_since is not None:
        metrics.FALLBACK_SINCE.set(meter, fallback_since, graph=graph)


def record_held(meter: Meter, *, graph: str, provider: str) -> None:
    """Record a held run: it has no cycle, so the gauges of the last cycle remain."""
    metrics.CYCLES.add(meter, 1, graph=graph, provider=provider, status=CycleStatus.HELD.value)
    metrics.HELD_TIMESTAMP.set(meter, time.time(), graph=graph)


def record_cycle_error(meter: Meter, error: Exception, *, graph: str, activity: str) -> None:
    """Record an attempt that raised."""
    kind, retryable = type(error).__name__, True
    if isinstance(error, ApplicationError):
        kind, retryable = error.type or kind, not error.non_retryable
    metrics.CYCLE_ERRORS.add(
        meter, 1, graph=graph, activity=activity, kind=kind, retryable=str(retryable).lower()
    )
    told = error.__cause__
    if isinstance(told, ProviderMisbehaved):
        metrics.PROVIDER_TROUBLES.add(meter, 1, provider=told.provider_id, trouble=told.trouble)
    elif isinstance(told, ProviderInvalid):
        metrics.PROVIDER_TROUBLES.add(meter, 1, provider=told.name, trouble="malformed")


def record_intervals(meter: Meter, graphs: Sequence[Graph], *, gone: Iterable[str]) -> None:
    """Record the longest interval of each graph; 0 for the slugs in `gone`, which have no Schedule now."""
    for graph in graphs:
        due = graph.status is GraphStatus.ACTIVE and graph.schedule.cron is None
        metrics.GRAPH_INTERVAL.set(meter, graph.schedule.intervals[-1] if due else 0, graph=graph.slug)
    for slug in gone:
        metrics.GRAPH_INTERVAL.set(meter, 0, graph=slug)


def record_reconciliation(meter: Meter, result: Reconciliation, *, seconds: float) -> None:
    """Record a reconciliation that returned; `seconds` is its duration."""
    metrics.RECONCILE_SECONDS.observe(meter, seconds)
    metrics.RECONCILE_TIMESTAMP.set(meter, time.time())
    metrics.SCHEDULES_REFUSED.set(meter, result.refusals)
    metrics.SCHEDULES_NEVER_DUE.set(meter, result.never_due)
    for change in ("created", "updated", "deleted"):
        metrics.SCHEDULES_CHANGED.add(meter, getattr(result, change), change=change)


def record_verification(meter: Meter, verification: Verification, *, graph: str) -> None:
    """Record a verification of a complete graph."""
    problems = sum(relation.problem is not None for relation in verification.relations)
    problems += len(verification.not_compared)
    metrics.VERIFY_TIMESTAMP.set(meter, time.time(), graph=graph)
    metrics.VERIFY_DAMAGED.set(meter, verification.damaged, graph=graph)
    metrics.VERIFY_COMPARED.set(meter, verification.compared, graph=graph)
    metrics.VERIFY_PROBLEMS.set(meter, problems, graph=graph)


def record_providers(meter: Meter, registry: Registry) -> None:
    """Record the providers installed in this worker, including its built-in engine."""
    own = version("syncline")
    found = {(names.FALLBACK_PROVIDER, own, f"syncline {own}")}
    for provider_id in registry.known("sync"):
        registered = registry.get("sync", provider_id)
        if registered is not None:
            found.add((provider_id, registered.provider.version, registered.distribution))
    for provider_id, provider_version, distribution in found:
        metrics.PROVIDER_INFO.set(
            meter, 1, provider=provider_id, version=provider_version, distribution=distribution
        )


def _age(writer: OpenWriter | None) -> float:
    if writer is None:
        return 0.0
    return math.nan if writer.age_seconds is None else writer.age_seconds
