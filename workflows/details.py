"""What an operator reads about a run in the Web UI: its state as markdown."""

from collections.abc import Iterator

from syncline.messages import ProviderState, RunPhase, SyncResult, SyncState, TableProgress

__all__ = ["describe_provider", "describe_run"]

_BUILT_IN = "built-in engine"
_GAP = "\u2003"
"""The Web UI gives table cells no padding, so that `25,170` and `13,622` would read as one number."""


def describe_provider(provider: ProviderState) -> str:
    """Return who runs the cycle, in a few words."""
    if provider.fallback is not None:
        return f"the {_BUILT_IN} (fallback)"
    return f"{provider.provider_id} {provider.provider_version or ''}".rstrip()


def describe_run(state: SyncState, result: SyncResult | None) -> str:
    """Return the run as markdown. `result` is this run's own: `state` may hold the previous one."""
    return "\n\n".join(_paragraphs(state, result))


def _paragraphs(state: SyncState, result: SyncResult | None) -> Iterator[str]:
    graph = "the default graph" if state.graph is None else f"**{state.graph}**"
    yield f"Graph {graph}: {state.phase.value}"
    if state.error is not None:
        yield f"**Error:** {state.error}"
    if state.phase is not RunPhase.RESOLVING and (state.provider.provider_id or state.provider.fallback):
        yield from _provider(state.provider)
    cadence = state.carried.cadence
    if cadence is not None:
        since = f"{cadence.since:%Y-%m-%d %H:%M:%S} UTC"
        yield f"Cadence: every {cadence.every_seconds:,} s since {since}. {cadence.reason}"
    if result is not None:
        yield _summary(result)
        yield from _tables(result.tables)
        yield from _troubles(result)
    elif state.progress is not None:
        yield f"Phase {state.progress.phase}, {state.progress.vectors:,} vectors so far"
        yield from _tables(state.progress.tables)


def _provider(provider: ProviderState) -> Iterator[str]:
    origin = f" (from {provider.distribution})" if provider.distribution else ""
    yield f"Provider: {describe_provider(provider)}{origin}"
    if provider.fallback is not None:
        since = provider.fallback_since
        when = "" if since is None else f" since {since:%Y-%m-%d %H:%M:%S} UTC"
        runs = provider.consecutive_fallback_runs
        yield (
            f"> **Fallback**{when}, {runs} {'run' if runs == 1 else 'runs'} in a row: "
            f"{provider.fallback.detail} (`{provider.fallback.reason.value}`)"
        )


def _summary(result: SyncResult) -> str:
    vectors = result.vectors
    return (
        f"**{result.status.value}** in {result.duration_seconds:.2f} s, {result.batches} batches, "
        f"lag {result.lag_seconds:.1f} s, {result.failures} failures, {result.parked} parked, "
        f"{result.dead_letters} dead letters. "
        f"Vectors: {vectors.upserted:,} upserted, {vectors.deleted:,} deleted, "
        f"{vectors.embedded:,} embedded, {vectors.pending:,} pending."
    )


def _tables(tables: tuple[TableProgress, ...]) -> Iterator[str]:
    if not tables:
        return
    names = ("table", "captured", "rows", "links", "deletes", "parked", "failures", "dead_letters")
    yield "\n".join(
        [
            _row(tuple(name.replace("_", " ") for name in names)),
            "|---|--:|--:|--:|--:|--:|--:|--:|",
            *(_row((table.table, *(f"{getattr(table, name):,}" for name in names[1:]))) for table in tables),
        ]
    )


def _age(seconds: float | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds:.0f} s"


def _row(cells: tuple[str, ...]) -> str:
    return "|" + "|".join(f"{_GAP}{cell}" for cell in cells) + "|"


def _troubles(result: SyncResult) -> Iterator[str]:
    troubles = [f"- **{table.table}**: {table.error}" for table in result.tables if table.error]
    if result.vectors.error:
        troubles.append(f"- **vectors**: {result.vectors.error}")
    writer = result.oldest_writer
    if writer is not None:
        name = writer.application_name or "unnamed"
        troubles.append(
            f"- The oldest open writing transaction is {_age(writer.age_seconds)} old "
            f"(application {name}, database {writer.database or 'unknown'}): "
            "what was written since it began waits for it."
        )
    if result.rescanned:
        troubles.append("- Every row was read again: the cursor was of another write-db or a later time.")
    if troubles:
        yield "\n".join(troubles)
