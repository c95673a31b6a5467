"""The markdown that an operator reads about a run."""

from datetime import UTC, datetime

from syncline.messages.base import LockHolder
from syncline.messages.provider_state import Fallback, FallbackReason, Held, ProviderState
from syncline.messages.sync import (
    CycleProgress,
    CycleStatus,
    LoadRanges,
    OpenWriter,
    RunPhase,
    SyncResult,
    SyncState,
    TableProgress,
    VectorProgress,
)
from workflows.details import describe_provider, describe_run

FALLBACK = ProviderState(
    fallback=Fallback(
        reason=FallbackReason.NOT_INSTALLED, detail="Nobody has 'acme-sync'.", provider_id="acme-sync"
    ),
    fallback_since=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
    consecutive_fallback_runs=3,
)


def test_a_run_that_resolves_names_its_graph_alone() -> None:
    assert describe_run(SyncState(graph="world"), None) == "Graph **world**: resolving"
    assert describe_run(SyncState(), None) == "Graph the default graph: resolving"


def test_a_fallback_says_why_since_when_and_how_often() -> None:
    text = describe_run(SyncState(graph="world", phase=RunPhase.SYNCING, provider=FALLBACK), None)
    assert (
        "> **Fallback** to the built-in engine since 2026-03-04 05:06:07 UTC, 3 runs in a row: "
        "Nobody has 'acme-sync'. (`not_installed`)"
    ) in text


def test_what_an_earlier_run_has_found_is_told_as_such() -> None:
    found = FALLBACK.model_copy(
        update={"of_run": "r4", "after_run": "r3", "as_of": datetime(2026, 3, 4, 5, 9, 7, tzinfo=UTC)}
    )
    for phase in (RunPhase.RESOLVING, RunPhase.FAILED):
        text = describe_run(SyncState(graph="world", phase=phase, resolved=False, provider=found), None)
        assert "3 runs in a row" in text
        assert "As resolved by run `r4` at 2026-03-04 05:09:07 UTC; this run has not resolved it." in text
    text = describe_run(SyncState(graph="world", phase=RunPhase.SYNCING, provider=found), None)
    assert "not resolved it" not in text


def test_a_run_by_hand_says_that_it_knows_of_none_before_it() -> None:
    first = FALLBACK.model_copy(update={"of_run": "r1", "consecutive_fallback_runs": 1})
    text = describe_run(SyncState(graph="world", phase=RunPhase.SYNCING, provider=first), None)
    assert "Counted from this run: it knows of no earlier one." in text
    # What it carries to the next one, that one knows of it.
    text = describe_run(SyncState(graph="world", resolved=False, provider=first), None)
    assert "knows of no" not in text


def test_a_held_run_says_so_and_has_no_numbers() -> None:
    held = ProviderState(
        provider_id="acme-sync",
        held=Held(provider_id="acme-sync", detail="Nobody has 'acme-sync'."),
        held_since=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        consecutive_held_runs=1,
    )
    state = SyncState(graph="world", phase=RunPhase.DONE, provider=held)
    assert describe_run(state, SyncResult(status=CycleStatus.HELD)) == (
        "Graph **world**: **held**, nothing was synced\n\n"
        "> **Held** since 2026-03-04 05:06:07 UTC, 1 run in a row: Nobody has 'acme-sync'. "
        "See `syncline providers`."
    )


def test_progress_is_a_table() -> None:
    progress = CycleProgress(
        phase="capture", tables=(TableProgress(table="nodes", captured=12_345, rows=9_000),), vectors=1_000
    )
    text = describe_run(SyncState(graph="world", phase=RunPhase.SYNCING, progress=progress), None)
    assert "Phase capture, 1,000 vectors so far" in text
    assert "|table|rows|captured|\n|---|--:|--:|\n|nodes|9,000|12,345|" in text.replace("\u00a0", "")


def test_progress_tells_loads_that_are_read_in_ranges() -> None:
    ranges = LoadRanges(table="nodes", cut=12, done=9, lanes=2), LoadRanges(table="edges")
    text = describe_run(SyncState(progress=CycleProgress(phase="capture", ranges=ranges)), None)
    assert "**nodes** 9 of 12 ranges so far, by 2 lanes" in text
    assert "edges" not in text


def test_a_result_tells_its_troubles_first_and_each_once() -> None:
    result = SyncResult(
        status=CycleStatus.FAILED,
        tables=(
            TableProgress(table="nodes", rows=3, captured=3, parked=2),
            TableProgress(table="edges", failures=1, error="column gone"),
            TableProgress(table="facts"),
        ),
        vectors=VectorProgress(
            pending=7, error="Vector store 'qdrant': away", refused=1, refusal="text too long"
        ),
        oldest_writer=OpenWriter(age_seconds=61.4, database="write", application_name="importer"),
        rescanned=True,
        failures=1,
        parked=2,
        dead_letters=3,
    )
    state = SyncState(graph="world", phase=RunPhase.FAILED, error="1 of 3 tables: edges: column gone")
    text = describe_run(state, result)
    headline, troubles, numbers, table, idle = text.split("\n\n")
    assert headline == "Graph **world**: **failed** in 0.00 s"
    assert "- **edges**: column gone" in troubles
    assert text.count("column gone") == 1
    assert "- **7 vectors pending**: Vector store 'qdrant': away" in troubles
    assert "- **1 vectors refused**, such as: text too long" in troubles
    assert "- **2 parked**: `syncline parked world`" in troubles
    assert "- **3 dead letters**: `syncline failures summary world`" in troubles
    assert "61 s old (application importer, database write)" in troubles
    assert "Every row was read again" in troubles
    assert numbers == "Written: 3 rows, 0 links, 0 vectors. Lag: 0.0 s."
    assert table.replace("\u00a0", "").splitlines()[0] == "|table|failures|parked|rows|captured|"
    assert idle == "Nothing to do in 1 other table."


def test_a_failure_that_no_table_explains_is_told() -> None:
    state = SyncState(graph="world", phase=RunPhase.FAILED, error="no table says why")
    assert "**Error:** no table says why" in describe_run(state, None)
    assert "**Error:** no table says why" in describe_run(state, SyncResult(status=CycleStatus.FAILED))


def test_an_idle_run_has_no_table_of_zeros() -> None:
    result = SyncResult(status=CycleStatus.DRAINED, tables=(TableProgress(table="nodes"),) * 12)
    text = describe_run(SyncState(graph="world", phase=RunPhase.DONE), result)
    assert "|" not in text
    assert text.endswith("Lag: 0.0 s.\n\nNothing to do in 12 tables.")


def test_a_provider_is_named_with_its_version() -> None:
    assert describe_provider(ProviderState(provider_id="default", provider_version="1.0")) == "default 1.0"
    assert describe_provider(FALLBACK) == "the built-in engine (fallback)"


def test_what_strangers_call_their_sessions_is_no_markup() -> None:
    from workflows.details import plain

    shown = plain("app](http://evil) <img src=x>\n\n# head | `code` **b**")
    assert "\n" not in shown
    for mark in "[]<>|`*#":
        assert not [place for place, sign in enumerate(shown) if sign == mark and shown[place - 1] != "\\"]
    assert plain("worker-1 (blue) 10.0.0.1:5432") == "worker-1 (blue) 10.0.0.1:5432"


def test_a_graph_that_is_held_has_its_holder_named() -> None:
    since = datetime(2026, 1, 31, 6, 40, tzinfo=UTC)
    ours = LockHolder(pid=7, role="syncline", run_id="0198-7b", attempt=2, held_since=since)
    told = describe_run(SyncState(graph="kg"), SyncResult(status=CycleStatus.ALREADY_RUNNING, holder=ours))
    assert "held by attempt 2 of run `0198-7b` since 2026-01-31 06:40:00 UTC (pid 7" in told
    strange = LockHolder(pid=8, role="mallory", application_name="x|`y")
    told = describe_run(SyncState(graph="kg"), SyncResult(status=CycleStatus.ALREADY_RUNNING, holder=strange))
    assert "held by pid 8 of the graph-db, role mallory (application " in told
    assert "x|`y" not in told
