"""Tracing by OTLP over HTTP: spans from the Schedule's run over its activities to the SQL statements.

Needs the extra `syncline[tracing]`, so it is imported only if SYNCLINE_TRACES_URL is set.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Timer

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Status, set_tracer_provider
from temporalio.client import Plugin
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider

from syncline.logs import get_log
from syncline.tracing import trace_by

__all__ = ["tracing"]

_PATIENCE = 5.0


@contextmanager
def tracing(url: str) -> Iterator[Plugin]:
    """Export the spans of this process to `url`; yield the plugin for Temporal's client and worker.

    OpenTelemetry's environment variables apply (OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES,
    OTEL_TRACES_SAMPLER, …). Spans that cannot be delivered are dropped, which is logged once. At the end,
    the remaining spans have five seconds.
    """
    exporter = _Discreet(endpoint=url)
    # Ids in a workflow come from its deterministic random numbers: a replayed run continues its trace.
    provider = create_tracer_provider(resource=Resource.create({"service.name": "syncline-worker"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    set_tracer_provider(provider)
    statements = AsyncPGInstrumentor(capture_parameters=False)  # type: ignore[no-untyped-call]
    statements.instrument(tracer_provider=provider)
    trace_by(provider.get_tracer("syncline"))
    try:
        yield OpenTelemetryPlugin(add_temporal_spans=True)
    finally:
        trace_by(None)
        statements.uninstrument()
        # An unreachable collector must not delay the shutdown: the exporter would keep retrying.
        giving_up = Timer(_PATIENCE, exporter.shutdown)
        giving_up.start()
        provider.shutdown()
        giving_up.cancel()


class _Discreet(OTLPSpanExporter):
    """Exporter that keeps only the type of an exception: its message may quote a rejected row.

    Its own failures are logged once, not for each retry of each batch.
    """

    def __init__(self, *, endpoint: str) -> None:
        super().__init__(endpoint=endpoint)
        self._url, self._failing = endpoint, False
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(self._warn_once)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export([_without_messages(span) for span in spans])
        if result is SpanExportResult.SUCCESS and self._failing:
            self._failing = False
            get_log().info("trace export works again")
        return result

    def _warn_once(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and not self._failing:
            self._failing = True
            get_log().warning("trace export failed", url=self._url, problem=record.getMessage())
        return False


def _without_messages(span: ReadableSpan) -> ReadableSpan:
    if not span.events and span.status.description is None:
        return span
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=[_type_alone(event) if event.name == "exception" else event for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _type_alone(event: Event) -> Event:
    kept = {name: value for name, value in (event.attributes or {}).items() if name == "exception.type"}
    return Event(event.name, kept, event.timestamp)
