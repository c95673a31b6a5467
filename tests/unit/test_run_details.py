"""The markdown that an operator reads about a run."""

from datetime import UTC, datetime

from syncline.messages import (
    CycleProgress,
    CycleStatus,
    Fallback,
    FallbackReason,
    OpenWriter,
    ProviderState,
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
        "> **Fallback** since 2026-03-04 05:06:07 UTC, 3 runs in a row: "
        "Nobody has 'acme-sync'. (`not_installed`)"
    ) in text


def test_progress_is_a_table() -> None:
    progress = CycleProgress(
        phase="capture", tables=(TableProgress(table="nodes", captured=12_345, rows=9_000),), vectors=1_000
    )
    text = describe_run(SyncState(graph="world", phase=RunPhase.SYNCING, progress=progress), None)
    assert "Phase capture, 1,000 vectors so far" in text
    assert "|nodes|12,345|9,000|0|0|0|0|" in text.replace("\u2003", "")


def test_a_result_tells_its_troubles() -> None:
    result = SyncResult(
        status=CycleStatus.FAILED,
        tables=(TableProgress(table="edges", failures=1, error="column gone"),),
        vectors=VectorProgress(pending=7, error="Vector store 'qdrant': away"),
        oldest_writer=OpenWriter(age_seconds=61.4, database="write", application_name="importer"),
        rescanned=True,
        failures=1,
    )
    text = describe_run(SyncState(graph="world", phase=RunPhase.FAILED, error="1 of 1 tables"), result)
    assert "**Error:** 1 of 1 tables" in text
    assert "- **edges**: column gone" in text
    assert "- **vectors**: Vector store 'qdrant': away" in text
    assert "61 s old (application importer, database write)" in text
    assert "Every row was read again" in text


def test_a_provider_is_named_with_its_version() -> None:
    assert describe_provider(ProviderState(provider_id="default", provider_version="1.0")) == "default 1.0"
    assert describe_provider(FALLBACK) == "the built-in engine (fallback)"
