"""What a run says of itself, for a person: who serves the graph, what each table did, what is wrong."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import typer

from syncline.cli.operators import format_time
from syncline.cli.output import one_line, print_columns
from syncline.quoting import counted
from syncline.run_text import caveats, describe_holder, describe_writer, provider_origin, runs_in_a_row

if TYPE_CHECKING:
    from syncline.messages.base import LockHolder
    from syncline.messages.provider_state import ProviderState
    from syncline.messages.sync import (
        EmbeddingUsed,
        SecondVectors,
        SyncResult,
        TableProgress,
        VectorProgress,
        Waiting,
    )

__all__ = [
    "did_something",
    "format_embedding",
    "format_waiting",
    "has_news",
    "print_result",
    "provider_lines",
]

_DONE: Final = ("captured", "rows", "links", "deletes")
_COUNTS: Final = (*_DONE, "parked", "failures", "dead_letters")


def format_waiting(waiting: "Waiting") -> str:
    """Return which service does not answer, and since when."""
    return f"{waiting.on} has answered neither a request nor a probe since {format_time(waiting.since)}"


def provider_lines(provider: "ProviderState", *, resolved: bool = True) -> Iterator[str]:
    """Yield who serves the graph, and since when nobody does; not `resolved`, as an earlier run found it."""
    if provider.held is not None:
        stretch = runs_in_a_row(provider.held_since, provider.consecutive_held_runs)
        yield f"{provider.provider_id}, held{stretch}: nothing is synced"
        yield provider.held.detail
    elif provider.fallback is not None:
        stretch = runs_in_a_row(provider.fallback_since, provider.consecutive_fallback_runs)
        yield f"the built-in engine, in fallback{stretch}"
        yield f"{provider.fallback.detail} ({provider.fallback.reason})"
    elif provider.provider_id is not None:
        name = f"{provider.provider_id} {provider.provider_version or ''}".rstrip()
        yield f"{name}{provider_origin(provider)}"
        if provider.map is not None:
            yield f"by map {provider.map.name}, version {provider.map.version}"
    if resolved and provider.begins_here:
        yield "counted from this run on: it knows of none before it"
    if not resolved and provider.of_run is not None:
        found_at = format_time(provider.as_of)
        yield f"so run {provider.of_run} has found it at {found_at}; this run has not found out"
    if provider.last_return is not None:
        away = provider.last_return.away
        back, since = format_time(provider.last_return.at), format_time(away.since)
        yield f"back at {back} from {away.how} since {since}"


def has_news(result: "SyncResult") -> bool:
    """Return whether `print_result` prints anything."""
    return (
        any(map(_has_news, result.tables))
        or any(map(_moved, _vectors_of(result)))
        or result.embedding is not None
        or any(True for _ in _troubles(result))
    )


def did_something(result: "SyncResult") -> bool:
    """Return whether a cycle read a change, also one that it had to park or refuse, or wrote anything."""
    return (
        any(getattr(table, name) for table in result.tables for name in (*_DONE, "failures"))
        or any(map(_moved, _vectors_of(result)))
        or bool(result.rows or result.links or result.failures)
    )


def _vectors_of(result: "SyncResult") -> Iterator["VectorProgress | SecondVectors"]:
    yield result.vectors
    if result.vectors.second is not None:
        yield result.vectors.second


def _moved(vectors: "VectorProgress | SecondVectors") -> bool:
    return bool(vectors.upserted or vectors.deleted or vectors.pending)


def print_result(result: "SyncResult") -> None:
    """Print what a cycle did: the tables that have something to tell, the vectors, and what is wrong."""
    told = [table for table in result.tables if _has_news(table)]
    if told:
        print_columns(
            ("table", *(name.replace("_", " ") for name in _COUNTS)),
            ((table.table, *(f"{getattr(table, name):,}" for name in _COUNTS)) for table in told),
        )
    vectors = result.vectors
    if _moved(vectors):
        typer.echo(
            f"vectors: {vectors.upserted:,} upserted, {vectors.deleted:,} deleted, "
            f"{vectors.embedded:,} embedded, {vectors.pending:,} pending"
        )
    if (second := vectors.second) is not None:
        typer.echo(
            f"second vectors: {second.upserted:,} upserted, {second.deleted:,} deleted, "
            f"{second.embedded:,} embedded, {second.pending:,} pending"
        )
    if result.embedding is not None:
        typer.echo(format_embedding(result.embedding))
    for line in _troubles(result):
        typer.echo(one_line(line))


def format_embedding(used: "EmbeddingUsed") -> str:
    """Return what a cycle used of the embedding service, and what is used of the day and its budgets."""
    told = f"embedding: {counted(used.tokens, 'token')} in {counted(used.requests, 'request')}"
    if used.estimated:
        told += f" ({used.estimated:,} of them estimated)"
    if used.today is not None:
        told += f", {used.today:,} today" + ("" if used.budget is None else f" of {used.budget:,}")
    if used.service_budget is not None and used.service_today is not None:
        told += f"; the service {used.service_today:,} of {used.service_budget:,}"
    return told


def _has_news(table: "TableProgress") -> bool:
    return table.error is not None or any(getattr(table, name) for name in _COUNTS)


def _troubles(result: "SyncResult") -> Iterator[str]:
    for table in result.tables:
        if table.error:
            yield f"{table.table}: {table.error}"
    if result.vectors.error:
        yield f"vectors: {result.vectors.error}"
    if result.vectors.refused:
        yield f"vectors: {result.vectors.refused:,} refused: {result.vectors.refusal}"
    second = result.vectors.second
    if second is not None and second.error:
        yield f"second vectors: {second.error}"
    if second is not None and second.refused:
        yield f"second vectors: {second.refused:,} refused: {second.refusal}"
    holder = result.holder
    if holder is not None:
        yield _held_by(holder)
    writer = result.oldest_writer
    if writer is not None:
        yield describe_writer(writer)
    yield from caveats(result)


def _held_by(holder: "LockHolder") -> str:
    since = "" if holder.since is None else f", connected {format_time(holder.since)}"
    idle = "" if holder.idle_since is None else f", asks for nothing since {format_time(holder.idle_since)}"
    end = f"end it there: SELECT pg_terminate_backend({holder.pid})"
    if holder.run_id is None:
        return f"{describe_holder(holder)}{since}{idle}; if that is no worker, {end}"
    return (
        f"{describe_holder(holder)}{idle}; once that run is over, the next one takes the graph from it. "
        f"To do so now, {end}"
    )
