"""Metrics: the library's meter over Temporal's, and what is measured of every cycle."""

from collections.abc import Callable
from typing import Final, TypeVar

from temporalio.common import (
    MetricCounter,
    MetricGaugeFloat,
    MetricHistogramFloat,
    MetricMeter,
)

from syncline.messages import SyncResult
from syncline.provider import Meter

__all__ = ["CYCLE_SECONDS", "CYCLE_SECONDS_BUCKETS", "TemporalMeter", "record_cycle"]

CYCLE_SECONDS: Final = "syncline_cycle_seconds"
CYCLE_SECONDS_BUCKETS: Final = (
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
)

InstrumentT = TypeVar("InstrumentT", MetricCounter, MetricGaugeFloat, MetricHistogramFloat)


class TemporalMeter:
    """A `syncline.provider.Meter` that records through the Temporal runtime, so that one endpoint serves all.

    Every name gets the prefix `syncline_`.
    """

    def __init__(self, meter: MetricMeter) -> None:
        self._meter = meter
        self._counters: dict[str, MetricCounter] = {}
        self._gauges: dict[str, MetricGaugeFloat] = {}
        self._histograms: dict[str, MetricHistogramFloat] = {}

    def count(self, name: str, value: int, **attributes: str) -> None:
        """Add `value` (>= 0) to the counter `name`."""
        _instrument(self._counters, name, self._meter.create_counter).add(value, attributes)

    def gauge(self, name: str, value: float, **attributes: str) -> None:
        """Set the gauge `name`."""
        _instrument(self._gauges, name, self._meter.create_gauge_float).set(value, attributes)

    def observe(self, name: str, value: float, **attributes: str) -> None:
        """Record `value` in the histogram `name`."""
        _instrument(self._histograms, name, self._meter.create_histogram_float).record(value, attributes)


def _instrument(
    known: dict[str, InstrumentT], name: str, create: Callable[[str], InstrumentT]
) -> InstrumentT:
    if name not in known:
        known[name] = create(f"syncline_{name}")
    return known[name]


def record_cycle(meter: Meter, result: SyncResult, *, graph: str, provider: str, fallback: bool) -> None:
    """Measure one cycle that returned."""
    labels = {"graph": graph, "provider": provider}
    meter.count("rows", result.rows, **labels)
    meter.count("failures", result.failures, **labels)
    meter.observe("cycle_seconds", result.duration_seconds, **labels)
    # Gauges are of the graph alone: with the provider as a label, a graph that changed providers would go on
    # showing the old one's last values.
    meter.gauge("lag_seconds", result.lag_seconds, graph=graph)
    meter.gauge("fallback", 1.0 if fallback else 0.0, graph=graph)
    meter.gauge("parked", result.parked, graph=graph)
    meter.gauge("dead_letters", result.dead_letters, graph=graph)
    meter.gauge("outbox_pending", result.vectors.pending, graph=graph)
