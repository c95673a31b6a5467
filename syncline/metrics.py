"""The metrics of a worker: each declared once, with its type, unit, labels and meaning.

`python -m syncline.metrics` prints the page `docs/metrics.md`. A plugin's own metrics need no declaration:
they go through the `Meter` of its context.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from syncline.provider import Meter

__all__ = ["DECLARED", "PREFIX", "Counter", "Gauge", "Histogram", "Metric", "reference"]

PREFIX: Final = "syncline_"
"""Of every name that a `Meter` records, ours and a plugin's."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. `name` is without the prefix, as a `Meter` takes it."""

    type: ClassVar[str]
    name: str
    unit: str
    labels: tuple[str, ...] = ()
    help: str

    @property
    def exposed(self) -> str:
        """The name that Prometheus sees."""
        return PREFIX + self.name

    def _checked(self, labels: dict[str, str]) -> dict[str, str]:
        """Return the labels, or raise TypeError if they are not the declared ones."""
        if labels.keys() != set(self.labels):
            raise TypeError(f"metric '{self.name}' has labels {self.labels}, not {tuple(labels)}")
        return labels


class Counter(Metric):
    """A sum that only grows, from 0 at the start of each worker."""

    type = "counter"

    def add(self, meter: Meter, value: int, **labels: str) -> None:
        """Add `value` (>= 0)."""
        meter.count(self.name, value, **self._checked(labels))


class Gauge(Metric):
    """A value as this worker saw it last."""

    type = "gauge"

    def set(self, meter: Meter, value: float, **labels: str) -> None:
        """Set it."""
        meter.gauge(self.name, value, **self._checked(labels))


@dataclass(frozen=True, kw_only=True)
class Histogram(Metric):
    """How often values fell into each bucket."""

    type = "histogram"
    buckets: tuple[float, ...]

    def observe(self, meter: Meter, value: float, **labels: str) -> None:
        """Count `value` in its bucket."""
        meter.observe(self.name, value, **self._checked(labels))


_GRAPH = ("graph",)
_CYCLE = ("graph", "provider")

CYCLES: Final = Counter(
    name="cycles",
    unit="cycles",
    labels=(*_CYCLE, "status"),
    help="Cycles that returned, by how they ended: drained, budget_spent, vectors_delayed, already_running, "
    "blocked, failed; and runs without one, because nobody had the provider: held.",
)
CYCLE_ERRORS: Final = Counter(
    name="cycle_errors",
    unit="attempts",
    labels=("graph", "activity", "kind", "retryable"),
    help="Attempts of resolve_provider or sync_cycle that raised. The kind is the error's class, see "
    "docs/temporal.md; graph is empty when the error came before the graph was known.",
)
CYCLE_SECONDS: Final = Histogram(
    name="cycle_seconds",
    unit="seconds",
    labels=_CYCLE,
    help="Duration of cycles that returned.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0),
)
ROWS: Final = Counter(
    name="rows", unit="rows", labels=_CYCLE, help="Rows inserted, changed or deleted in the graph-db."
)
DELETES: Final = Counter(
    name="deletes", unit="rows", labels=_CYCLE, help="Rows deleted in the graph-db; rows has them too."
)
LINKS: Final = Counter(
    name="links", unit="links", labels=_CYCLE, help="Link rows inserted or removed in the graph-db."
)
FAILURES: Final = Counter(
    name="failures",
    unit="failures",
    labels=_CYCLE,
    help="Rows that were refused, first or again, and tables that failed.",
)
VECTORS_UPSERTED: Final = Counter(
    name="vectors_upserted", unit="points", labels=_CYCLE, help="Points written to the vector store."
)
VECTORS_DELETED: Final = Counter(
    name="vectors_deleted", unit="points", labels=_CYCLE, help="Points deleted from the vector store."
)
TEXTS_EMBEDDED: Final = Counter(
    name="texts_embedded", unit="texts", labels=_CYCLE, help="Texts that the embedding service has embedded."
)

CYCLE_TIMESTAMP: Final = Gauge(
    name="cycle_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When the last cycle that measured the graph ended on this worker. Its gauges are as of then.",
)
LAST_SUCCESS: Final = Gauge(
    name="last_success_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When the last cycle that brought the graph forward (drained, budget_spent, vectors_delayed) ended.",
)
LAG: Final = Gauge(
    name="lag_seconds",
    unit="seconds",
    labels=_GRAPH,
    help="How far the graph-db may have been behind the write-db when the cycle ended. It counts on while "
    "cycles find the graph taken and no run has it.",
)
OLDEST_WRITER: Final = Gauge(
    name="oldest_writer_seconds",
    unit="seconds",
    labels=_GRAPH,
    help="Age of the oldest open writing transaction of the write-db's cluster, 0 without one; NaN when the "
    "worker's role may not see it.",
)
PENDING_TABLES: Final = Gauge(
    name="pending_tables",
    unit="tables",
    labels=_GRAPH,
    help="Tables in which rows were left for the next cycle, because the time was spent or the table failed. "
    "How many rows is not counted: that would cost a scan.",
)
PARKED: Final = Gauge(
    name="parked",
    unit="rows",
    labels=_GRAPH,
    help="Rows, links and references that wait for a row that has not come.",
)
DEAD_LETTERS: Final = Gauge(
    name="dead_letters",
    unit="rows",
    labels=_GRAPH,
    help="Rows that the graph-db refused and that have not landed since: those to be retried and the dead.",
)
OUTBOX_PENDING: Final = Gauge(
    name="outbox_pending",
    unit="points",
    labels=_GRAPH,
    help="Points that the vector store is owed; refused ones are not among them.",
)
VECTORS_REFUSED: Final = Gauge(
    name="vectors_refused",
    unit="points",
    labels=_GRAPH,
    help="Points that the vector store or the embedding service refused, not written since.",
)
FALLBACK: Final = Gauge(
    name="fallback",
    unit="0 or 1",
    labels=_GRAPH,
    help="1 when the built-in engine stood in because no provider answered.",
)
FALLBACK_SINCE: Final = Gauge(
    name="fallback_since_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When the present stretch of fallback runs began, if the run knows of one before it; 0 while a "
    "provider serves the graph.",
)
HELD_TIMESTAMP: Final = Gauge(
    name="held_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When this worker last found that the graph is to wait, as nobody has its provider. A cycle that "
    "ended later, on any worker, ended that.",
)
BLOCKED_TIMESTAMP: Final = Gauge(
    name="blocked_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When this worker last found the graph taken, as the run before did, while no run of it was open. A "
    "cycle that ended later, on any worker, ended that.",
)

VERIFY_DAMAGED: Final = Gauge(
    name="verify_damaged",
    unit="keys",
    labels=_GRAPH,
    help="Keys that the last verification found missing, extra or stale, before any repair.",
)
VERIFY_COMPARED: Final = Gauge(
    name="verify_compared", unit="keys", labels=_GRAPH, help="Keys that the last verification looked at."
)
VERIFY_PROBLEMS: Final = Gauge(
    name="verify_problems",
    unit="relations",
    labels=_GRAPH,
    help="Relations that the last verification could not compare, or repair, to the end.",
)
VERIFY_TIMESTAMP: Final = Gauge(
    name="verify_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When the last verification of the graph ended on this worker.",
)

RECONCILE_SECONDS: Final = Histogram(
    name="reconcile_seconds",
    unit="seconds",
    help="Duration of reconciliations of all Schedules that returned.",
    buckets=(0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0),
)
SCHEDULES_CHANGED: Final = Counter(
    name="schedules_changed",
    unit="Schedules",
    labels=("change",),
    help="Schedules that reconciliation created, updated or deleted.",
)
SCHEDULES_REFUSED: Final = Gauge(
    name="schedules_refused",
    unit="graphs",
    help="Graphs whose Schedule the last reconciliation could not make to match.",
)
SCHEDULES_NEVER_DUE: Final = Gauge(
    name="schedules_never_due",
    unit="graphs",
    help="Graphs whose Schedule is not paused and never comes again, as the last reconciliation saw it.",
)
RECONCILE_TIMESTAMP: Final = Gauge(
    name="reconcile_timestamp_seconds",
    unit="unix time",
    help="When the last reconciliation ended on this worker.",
)
GRAPH_INTERVAL: Final = Gauge(
    name="graph_interval_seconds",
    unit="seconds",
    labels=_GRAPH,
    help="Longest interval at which the graph's Schedule runs, as the last reconciliation saw it: of an "
    "adaptive graph the slowest; 0 when the graph is paused, archived or gone, or runs by a cron expression.",
)
LISTENING: Final = Gauge(
    name="listening",
    unit="0 or 1",
    labels=("store",),
    help="1 while this worker listens to the write-db, 0 while it waits for its turn or cannot; not there "
    "with SYNCLINE_NOTIFY=false. Of all workers one should have 1.",
)
NOTIFICATIONS: Final = Counter(
    name="notifications",
    unit="notifications",
    labels=("store",),
    help="Changes of the write-db that this worker heard of. Those within one second share a run.",
)
TRIGGERS: Final = Counter(
    name="triggers",
    unit="runs",
    labels=("store", "outcome"),
    help="Runs that were due for a change, by what came of it: started; coming, because a run looks at "
    "it anyway; paused or absent, as the Schedule was; failed, which is tried again.",
)
PROVIDER_TROUBLES: Final = Counter(
    name="provider_troubles",
    unit="times",
    labels=("provider", "trouble"),
    help="How often a provider had to be contained, by what it did: docs/containment.md.",
)
PROVIDER_INFO: Final = Gauge(
    name="provider_info",
    unit="1",
    labels=("provider", "version", "distribution"),
    help="Always 1, for each provider that this worker has, and for its built-in engine.",
)

DECLARED: Final[Mapping[str, Metric]] = {
    value.name: value for value in tuple(globals().values()) if isinstance(value, Metric)
}
"""All of the above, by name."""


_PAGE: Final = """\
# Metrics

Served where `SYNCLINE_METRICS_ADDRESS` says, on `/metrics`, beside those of the Temporal SDK. How to scrape,
record and alert: [operations/monitoring.md](operations/monitoring.md). This page is what
`python -m syncline.metrics` prints.

| Name | Type | Unit | Labels | What it is |
|---|---|---|---|---|
{lines}

The SDK adds label `service_name` to every one. As with its own, a counter has no `_total` in its name. Each
worker counts for itself.

Gauges of a graph stay at what *this* worker saw last, also after another worker has taken the graph on. Of
several workers, the one with the newest `syncline_cycle_timestamp_seconds` of the graph is right.
For `verify_*` that is `syncline_verify_timestamp_seconds`; for `graph_interval_seconds` and
those of `schedules_`, `syncline_reconcile_timestamp_seconds`. The recording rules in
[ops/alerts.yml](../ops/alerts.yml) pick it.

A plugin's metrics, by the `meter` of its context, get the prefix `syncline_` too; the names above are taken.
"""


def reference() -> str:
    """Return the page `docs/metrics.md`: every metric, as it is declared."""
    return _PAGE.format(lines="\n".join(_line(metric) for metric in DECLARED.values()))


def _line(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    told = metric.help
    if isinstance(metric, Histogram):
        told += f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}."
    return f"| `{metric.exposed}` | {metric.type} | {metric.unit} | {labels} | {told} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
