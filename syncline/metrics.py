"""Metric declarations of a worker: each metric once, with its type, unit, labels and meaning.

`python -m syncline.metrics` prints the page `docs/metrics.md`. A plugin's own metrics need no declaration:
the plugin records them through the `Meter` of its context. One module because it is one table, and the page
generated from it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from syncline.provider import Meter

__all__ = ["DECLARED", "PREFIX", "Counter", "Gauge", "Histogram", "Metric", "reference"]

PREFIX: Final = "syncline_"
"""Prefix of every metric name that a `Meter` records, Syncline's and plugins'."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Declaration of one metric. `name` has no prefix, as `Meter` expects it."""

    type: ClassVar[str]
    name: str
    unit: str
    labels: tuple[str, ...] = ()
    help: str

    @property
    def exposed(self) -> str:
        """The name in Prometheus."""
        return PREFIX + self.name

    def _checked(self, labels: dict[str, str]) -> dict[str, str]:
        """Return the labels, or raise TypeError if they are not the declared ones."""
        if labels.keys() != set(self.labels):
            raise TypeError(f"metric '{self.name}' has labels {self.labels}, not {tuple(labels)}")
        return labels


class Counter(Metric):
    """A sum that only increases, from 0 at the start of each worker."""

    type = "counter"

    def add(self, meter: Meter, value: int, **labels: str) -> None:
        """Add `value` (>= 0)."""
        meter.count(self.name, value, **self._checked(labels))


class Gauge(Metric):
    """The last value that this worker observed."""

    type = "gauge"

    def set(self, meter: Meter, value: float, **labels: str) -> None:
        """Set the gauge to `value`."""
        meter.gauge(self.name, value, **self._checked(labels))


@dataclass(frozen=True, kw_only=True)
class Histogram(Metric):
    """Counts of observed values per bucket."""

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
    help="Cycles that returned, by status: drained, budget_spent, vectors_delayed, already_running, "
    "blocked, failed; and runs without a cycle, because no worker had the provider: held.",
)
CYCLE_ERRORS: Final = Counter(
    name="cycle_errors",
    unit="attempts",
    labels=("graph", "activity", "kind", "retryable"),
    help="Attempts of resolve_provider or sync_cycle that raised. `kind` is the error's class, see "
    "docs/temporal.md; `graph` is empty if the error came before the graph was known.",
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
    name="deletes", unit="rows", labels=_CYCLE, help="Rows deleted in the graph-db; included in rows."
)
LINKS: Final = Counter(
    name="links", unit="links", labels=_CYCLE, help="Link rows inserted or removed in the graph-db."
)
FAILURES: Final = Counter(
    name="failures",
    unit="failures",
    labels=_CYCLE,
    help="Rejected rows, new or retried, plus failed tables.",
)
VECTORS_UPSERTED: Final = Counter(
    name="vectors_upserted", unit="points", labels=_CYCLE, help="Points written to the vector store."
)
VECTORS_DELETED: Final = Counter(
    name="vectors_deleted", unit="points", labels=_CYCLE, help="Points deleted from the vector store."
)
TEXTS_EMBEDDED: Final = Counter(
    name="texts_embedded", unit="texts", labels=_CYCLE, help="Texts embedded by the embedding service."
)

CYCLE_TIMESTAMP: Final = Gauge(
    name="cycle_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="End of the last cycle that measured the graph on this worker. Its gauges are as of this time.",
)
LAST_SUCCESS: Final = Gauge(
    name="last_success_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="End of the last successful cycle of the graph: drained, budget_spent or vectors_delayed.",
)
LAG: Final = Gauge(
    name="lag_seconds",
    unit="seconds",
    labels=_GRAPH,
    help="Upper bound on the graph-db's lag behind the write-db at the end of the cycle. It keeps growing "
    "while cycles find the graph's lock taken and no run of it is open.",
)
MAX_LAG: Final = Gauge(
    name="max_lag_seconds",
    unit="seconds",
    labels=_GRAPH,
    help="Lag that the graph's record allows (`graph set --max-lag`); 0 if it promises nothing.",
)
OLDEST_WRITER: Final = Gauge(
    name="oldest_writer_seconds",
    unit="seconds",
    labels=_GRAPH,
    help="Age of the oldest open transaction that writes to the write-db, 0 without one; NaN if the worker's "
    "role may not see it.",
)
PENDING_TABLES: Final = Gauge(
    name="pending_tables",
    unit="tables",
    labels=_GRAPH,
    help="Tables with rows left for the next cycle, because the time budget was spent or the table failed. "
    "The rows are not counted, because that would need a scan.",
)
PARKED: Final = Gauge(
    name="parked",
    unit="rows",
    labels=_GRAPH,
    help="Parked rows, links and references: their parent row is missing in the graph-db.",
)
NEW_COLUMNS: Final = Gauge(
    name="new_columns",
    unit="columns",
    labels=_GRAPH,
    help="Columns that were added to sources and wait for a decision: `syncline status GRAPH` names them.",
)
REMOVAL_WITHHELD: Final = Gauge(
    name="removal_withheld",
    unit="rows",
    labels=_GRAPH,
    help="Rows that the write-db turned out not to have, and that are too many to remove unasked.",
)
KEYS_OWED: Final = Gauge(
    name="keys_owed",
    unit="objects",
    labels=_GRAPH,
    help="Foreign keys and indexes that a first load has put off: `syncline status GRAPH` names them.",
)
DEAD_LETTERS: Final = Gauge(
    name="dead_letters",
    unit="rows",
    labels=_GRAPH,
    help="Rows that the graph-db rejected, not applied since: those waiting for a retry and the dead.",
)
OUTBOX_PENDING: Final = Gauge(
    name="outbox_pending",
    unit="points",
    labels=_GRAPH,
    help="Outbox entries not yet written to the vector store, without rejected ones.",
)
VECTORS_REFUSED: Final = Gauge(
    name="vectors_refused",
    unit="points",
    labels=_GRAPH,
    help="Points that the vector store or the embedding service rejected, not written since.",
)
EMBEDDING_TOKENS: Final = Counter(
    name="embedding_tokens",
    unit="tokens",
    labels=_CYCLE,
    help="Tokens that the embedding service counted, or that are estimated where it counts none.",
)
EMBEDDING_REQUESTS: Final = Counter(
    name="embedding_requests", unit="requests", labels=_CYCLE, help="Requests to the embedding service."
)
EMBEDDING_REFUSED: Final = Counter(
    name="embedding_refused",
    unit="texts",
    labels=_CYCLE,
    help="Texts of requests that the embedding service refused or never answered.",
)
EMBEDDING_TODAY: Final = Gauge(
    name="embedding_tokens_today",
    unit="tokens",
    labels=_GRAPH,
    help="Tokens of the graph on the day (UTC) of the last cycle that embedded anything.",
)
EMBEDDING_BUDGET: Final = Gauge(
    name="embedding_budget_tokens",
    unit="tokens",
    labels=_GRAPH,
    help="Tokens that the graph may have embedded a day, by its record; 0 without a limit. As of the last "
    "cycle that embedded anything.",
)
EMBEDDING_BUDGET_SPENT: Final = Gauge(
    name="embedding_budget_spent",
    unit="0 or 1",
    labels=_GRAPH,
    help="1 if texts of the graph wait because a budget of tokens is spent, its own or the service's.",
)
FALLBACK: Final = Gauge(
    name="fallback",
    unit="0 or 1",
    labels=_GRAPH,
    help="1 if the built-in engine ran because no provider was available.",
)
FALLBACK_SINCE: Final = Gauge(
    name="fallback_since_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When the current fallback outage began, if the run knows of a run before it; 0 while a provider "
    "serves the graph.",
)
HELD_TIMESTAMP: Final = Gauge(
    name="held_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When this worker last held the graph, because no worker has its provider. A cycle that ended "
    "later, on any worker, has ended the outage.",
)
BLOCKED_TIMESTAMP: Final = Gauge(
    name="blocked_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="When this worker last found the graph's lock taken while no run of it was open, for the second "
    "run in a row. A cycle that ended later, on any worker, has ended the block.",
)

VERIFY_DAMAGED: Final = Gauge(
    name="verify_damaged",
    unit="keys",
    labels=_GRAPH,
    help="Keys that the last verification found missing, extra or stale, before a repair.",
)
VERIFY_COMPARED: Final = Gauge(
    name="verify_compared", unit="keys", labels=_GRAPH, help="Keys that the last verification compared."
)
VERIFY_PROBLEMS: Final = Gauge(
    name="verify_problems",
    unit="relations",
    labels=_GRAPH,
    help="Relations that the last verification could not compare or repair completely.",
)
VERIFY_TIMESTAMP: Final = Gauge(
    name="verify_timestamp_seconds",
    unit="unix time",
    labels=_GRAPH,
    help="End of the last verification of the graph on this worker.",
)

RECONCILE_SECONDS: Final = Histogram(
    name="reconcile_seconds",
    unit="seconds",
    help="Duration of reconciliations of Schedules that returned.",
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
    help="Graphs whose Schedule the last reconciliation could not change to match.",
)
SCHEDULES_NEVER_DUE: Final = Gauge(
    name="schedules_never_due",
    unit="graphs",
    help="Graphs whose Schedule is not paused but has no future time, by the last reconciliation.",
)
RECONCILE_TIMESTAMP: Final = Gauge(
    name="reconcile_timestamp_seconds",
    unit="unix time",
    help="End of the last reconciliation on this worker.",
)
GRAPH_INTERVAL: Final = Gauge(
    name="graph_interval_seconds",
    unit="seconds",
    labels=_GRAPH,
    help="Longest interval of the graph's Schedule, by the last reconciliation: the slowest one of an "
    "adaptive graph; 0 if the graph is paused, archived or deleted, or runs by a cron expression.",
)
LISTENING: Final = Gauge(
    name="listening",
    unit="0 or 1",
    labels=("store",),
    help="1 while this worker listens to the write-db, 0 while it is standby or cannot listen; absent with "
    "SYNCLINE_NOTIFY=false. Exactly one of all workers should have 1.",
)
NOTIFICATIONS: Final = Counter(
    name="notifications",
    unit="notifications",
    labels=("store",),
    help="Change notifications of the write-db received by this worker. Those within a second share a run.",
)
TRIGGERS: Final = Counter(
    name="triggers",
    unit="runs",
    labels=("store", "outcome"),
    help="Runs triggered by a change, by outcome: started; coming, because a run that reads the change is "
    "due anyway; lingered, because a lingering cycle has read it; paused or absent, by the state of the "
    "Schedule; failed, which is retried.",
)
LINGERED_PASSES: Final = Counter(
    name="lingered_passes",
    unit="times",
    labels=("graph",),
    help="Times that lingering cycles found changes: each is a run that was not started.",
)
PROBE_RED: Final = Gauge(
    name="probe_red",
    unit="0 or 1",
    labels=("check",),
    help="1 while this check of the worker's probes is red: docs/deployment.md#probes. Absent without "
    "`SYNCLINE_PROBES`.",
)
PROVIDER_TROUBLES: Final = Counter(
    name="provider_troubles",
    unit="times",
    labels=("provider", "trouble"),
    help="Contained misbehaviour of a provider, by kind: docs/containment.md.",
)
PROVIDER_INFO: Final = Gauge(
    name="provider_info",
    unit="1",
    labels=("provider", "version", "distribution"),
    help="Always 1, for each provider installed in this worker, and for its built-in engine.",
)

DECLARED: Final[Mapping[str, Metric]] = {
    value.name: value for value in tuple(globals().values()) if isinstance(value, Metric)
}
"""All metrics declared above, by name."""


_PAGE: Final = """\
# Metrics

Served at `SYNCLINE_METRICS_ADDRESS`, path `/metrics`, together with the metrics of the Temporal SDK.
Scraping, recording rules and alerts: [operations/monitoring.md](operations/monitoring.md). `make docs`
generates this page.

| Name | Type | Unit | Labels | Meaning |
|---|---|---|---|---|
{lines}

The SDK adds label `service_name` to every metric. As with its own metrics, counter names do not end in
`_total`. Each worker counts separately.

A gauge of a graph keeps the last value that *this* worker observed, even after another worker has run the
graph. The current value is that of the worker with the newest `syncline_cycle_timestamp_seconds` of the
graph. For `verify_*` compare `syncline_verify_timestamp_seconds`; for `graph_interval_seconds` and
`schedules_*`, `syncline_reconcile_timestamp_seconds`. The recording rules in
[ops/alerts.yml](../ops/alerts.yml) select it.

Metrics that a plugin records through the `meter` of its context also get the prefix `syncline_`; the names
above are reserved.
"""


def reference() -> str:
    """Return the page `docs/metrics.md`, generated from the declarations."""
    return _PAGE.format(lines="\n".join(_line(metric) for metric in DECLARED.values()))


def _line(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    meaning = metric.help
    if isinstance(metric, Histogram):
        meaning += f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}."
    return f"| `{metric.exposed}` | {metric.type} | {metric.unit} | {labels} | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
