"""Syncline's spans in the trace of a run. Without tracing they cost nothing and import nothing.

Spans contain no rows: a statement is recorded without its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

__all__ = ["annotate", "current_trace_id", "span", "trace_by"]

_tracer: Tracer | None = None


def trace_by(tracer: Tracer | None) -> None:
    """Use `tracer` for all further spans of this process; None turns spans off."""
    global _tracer  # noqa: PLW0603 # like OpenTelemetry's own provider: one for each process
    _tracer = tracer


@contextmanager
def span(name: str, *, statement: str | None = None, **attributes: str | int) -> Iterator[None]:
    """Record the body of the context as a span. Attributes get the prefix `syncline.`."""
    if _tracer is None:
        yield
        return
    named = _named(attributes) | ({} if statement is None else {"db.statement": statement})
    with _tracer.start_as_current_span(name, attributes=named):
        yield


def annotate(**attributes: str | int) -> None:
    """Add attributes to the current span."""
    if _tracer is not None:
        _current_span().set_attributes(_named(attributes))


def current_trace_id() -> str | None:
    """Return the id of the current trace in hex; None without one."""
    if _tracer is None:
        return None
    context = _current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"syncline.{name}": value for name, value in attributes.items()}


def _current_span() -> Span:
    from opentelemetry.trace import get_current_span

    return get_current_span()
