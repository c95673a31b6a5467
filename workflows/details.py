"""Details of a run in the Web UI: its state as markdown, for operators."""

import re
from collections.abc import Iterable, Iterator, Sequence

from syncline.messages.provider_state import ProviderReturned, ProviderState
from syncline.messages.sync import CycleStatus, LoadRanges, SyncResult, SyncState, TableProgress
from syncline.messages.takeover import Takeover
from syncline.messages.verification import Relation, Verdict, Verification
from syncline.quoting import counted
from syncline.run_text import (
    caveats,
    describe_holder,
    describe_writer,
    format_lag,
    format_since,
    provider_origin,
    runs_in_a_row,
)

__all__ = ["describe_provider", "describe_run", "describe_takeover", "describe_verification", "table"]

_BUILT_IN = "built-in engine"
_MARKUP = re.compile(r"[\\`*\[\]<>|~#!]")
_GAP = "\u00a0\u00a0"
"""The Web UI gives table cells no padding, so `25,170` and `13,622` would read as one number."""

_COLUMNS = ("failures", "dead_letters", "parked", "rows", "links", "deletes", "captured")
"""Problems come first: the Web UI shows half a page, and cuts off the right of a wide table."""


def describe_provider(provider: ProviderState) -> str:
    """Return a short description of the provider that runs the cycle."""
    if provider.fallback is not None:
        return f"the {_BUILT_IN} (fallback)"
    return f"{provider.provider_id} {provider.provider_version or ''}".rstrip()


def describe_run(state: SyncState, result: SyncResult | None) -> str:
    """Return the run as markdown: its end, then its problems, then its work.

    `result` is this run's own: `state` may contain the previous one.
    """
    return "\n\n".join(_paragraphs(state, result))


def _paragraphs(state: SyncState, result: SyncResult | None) -> Iterator[str]:
    graph = "the default graph" if state.graph is None else f"**{state.graph}**"
    held = result is not None and result.status is CycleStatus.HELD
    ended = None if result is None else f"**{result.ended_as}** in {result.duration_seconds:.2f} s"
    if held:
        ended = "**held**, nothing was synced"
    yield f"Graph {graph}: {ended or state.phase.value}"
    if state.error is not None and not (result and any(done.error for done in result.tables)):
        yield f"**Error:** {state.error}"  # otherwise it repeats the tables' errors, which follow below
    if result is not None:
        yield from _troubles(result, state.graph or "…")
    if state.provider.provider_id or state.provider.fallback:
        yield from _provider(state.provider)
        if state.resolved and state.provider.begins_here:
            yield "Counted from this run: it knows of no earlier one."
        if not state.resolved:
            yield _earlier(state.provider)
    for signal in state.signals:
        if isinstance(signal, ProviderReturned):
            yield f"The provider is back, after {signal.away.how.value}{format_since(signal.away.since)}."
    if result is not None and result.blocked:
        stretch = runs_in_a_row(state.carried.unowned_since, state.carried.unowned_runs)
        yield (
            f"> **Blocked**{stretch}: the graph's lock is taken and no run of it is open, so nothing "
            "is synced. `syncline doctor` names the session that holds it."
        )
    cadence = state.carried.cadence
    if cadence is not None:
        yield f"Cadence: every {cadence.every_seconds:,} s{format_since(cadence.since)}. {cadence.reason}"
    if held:
        return
    if result is not None:
        yield _summary(result)
        yield from _tables(result.tables)
    elif state.progress is not None:
        yield f"Phase {state.progress.phase}, {state.progress.vectors:,} vectors so far"
        yield from _ranges(state.progress.ranges)
        yield from _tables(state.progress.tables)


def _provider(provider: ProviderState) -> Iterator[str]:
    if provider.held is not None:
        stretch = runs_in_a_row(provider.held_since, provider.consecutive_held_runs)
        yield f"> **Held**{stretch}: {provider.held.detail} See `syncline providers`."
    elif provider.fallback is not None:
        stretch = runs_in_a_row(provider.fallback_since, provider.consecutive_fallback_runs)
        yield (
            f"> **Fallback** to the {_BUILT_IN}{stretch}: "
            f"{provider.fallback.detail} (`{provider.fallback.reason.value}`)"
        )
    else:
        used = provider.map
        by = "" if used is None else f", by map **{used.name}** version {used.version}"
        yield f"Provider: {describe_provider(provider)}{provider_origin(provider, code=_code)}{by}"


def _earlier(provider: ProviderState) -> str:
    at = "" if provider.as_of is None else f" at {provider.as_of:%Y-%m-%d %H:%M:%S} UTC"
    which = "an earlier run" if provider.of_run is None else f"run `{provider.of_run}`"
    return f"As resolved by {which}{at}; this run has not resolved it."


def _summary(result: SyncResult) -> str:
    return (
        f"Written: {result.rows:,} rows, {result.links:,} links, {result.vectors.upserted:,} vectors. "
        f"Lag: {format_lag(result)}."
        f"{_lingered(result)}"
    )


def _lingered(result: SyncResult) -> str:
    if not result.lingered_seconds:
        return ""
    found = (
        f"found some {counted(result.lingered_passes, 'time')}" if result.lingered_passes else "found none"
    )
    return f" It lingered {result.lingered_seconds:.1f} s for further changes, and {found}."


def _ranges(loads: tuple[LoadRanges, ...]) -> Iterator[str]:
    if any(load.cut for load in loads):
        told = [
            f"**{load.table}** {load.done:,} of {counted(load.cut, 'range')} so far,"
            f" by {counted(load.lanes, 'lane')}"
            for load in loads
            if load.cut
        ]
        yield f"Read in ranges: {'; '.join(told)}"


def _tables(tables: tuple[TableProgress, ...]) -> Iterator[str]:
    """Yield a table of the work per table, without rows and columns that are all zeros."""
    columns = [name for name in _COLUMNS if any(getattr(done, name) for done in tables)]
    busy = [done for done in tables if any(getattr(done, name) for name in columns)]
    if busy:
        yield table(
            ["table", *(name.replace("_", "\u00a0") for name in columns)],
            ((done.table, *(f"{getattr(done, name):,}" for name in columns)) for done in busy),
        )
    idle = len(tables) - len(busy)
    if idle:
        yield f"Nothing to do in {counted(idle, 'other table' if busy else 'table')}."


def plain(text: str) -> str:
    """Return untrusted text escaped for markdown: one line, no formatting, no links."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Return a markdown table; the first `words` columns are text, the others numbers."""
    rule = "|" + "---|" * words + "--:|" * (len(header) - words)
    return "\n".join([_row(header), rule, *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f"{_GAP}{cell}" for cell in cells) + "|"


def _troubles(result: SyncResult, slug: str) -> Iterator[str]:
    vectors, writer = result.vectors, result.oldest_writer
    troubles = [f"**{done.table}**: {plain(done.error)}" for done in result.tables if done.error]
    if result.dead_letters:
        troubles.append(f"**{result.dead_letters:,} dead letters**: `syncline failures summary {slug}`")
    if result.parked:
        troubles.append(f"**{result.parked:,} parked**: `syncline parked {slug}`")
    if vectors.error:
        troubles.append(f"**{vectors.pending:,} vectors pending**: {plain(vectors.error)}")
    if vectors.refusal:
        troubles.append(f"**{vectors.refused:,} vectors refused**, such as: {plain(vectors.refusal)}")
    if (second := vectors.second) is not None and second.error:
        troubles.append(f"**{second.pending:,} second vectors pending**: {plain(second.error)}")
    if second is not None and second.refusal:
        troubles.append(f"**{second.refused:,} second vectors refused**, such as: {plain(second.refusal)}")
    if writer is not None:
        troubles.append(describe_writer(writer, clean=plain))
    if result.holder is not None:
        troubles.append(f"{describe_holder(result.holder, clean=plain, code=_code)}.")
    troubles += caveats(result)
    if troubles:
        yield "\n".join(f"- {trouble}" for trouble in troubles)


def _code(text: str) -> str:
    return f"`{text}`"


def describe_verification(found: Verification) -> str:
    """Return a verification as markdown: summary, table, and relations that could not be compared."""
    return "\n\n".join(_operation_details_paragraphs(found))


def describe_takeover(found: Takeover) -> str:
    """Return a takeover as markdown: what is written and deleted, what refuses it, and the comparison."""
    said = [f"- {sentence}" for sentence in (*found.refusals, *found.sentences())]
    return "\n\n".join([*(["\n".join(said)] if said else []), describe_verification(found.found)])


def _operation_details_paragraphs(found: Verification) -> Iterator[str]:
    yield found.sentence(emphasis="**")
    header = ("what", "of", "equal", *(verdict.value for verdict in Verdict))
    yield table(header, [_cells(relation) for relation in found.relations], words=2)
    problems = [
        f"- **{relation.name}** ({relation.kind.value}) was not compared: {relation.problem}"
        for relation in found.relations
        if relation.problem
    ]
    notes = [
        f"- {sentence}" for sentence in (*found.not_compared, *found.behind, *found.owed, *found.differences)
    ] + problems
    if notes:
        yield "\n".join(notes)


def _cells(relation: Relation) -> tuple[str, ...]:
    counts = (f"{relation.found(verdict).count:,}" for verdict in Verdict)
    return (relation.name, relation.kind.value, f"{relation.equal:,}", *counts)
