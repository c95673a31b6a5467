"""What plugins import stays where it is, wherever the house moves what is behind it."""

import importlib

import pytest

DOORS = {
    "syncline.engine": (
        "KNOWLEDGE_GRAPH Column Links Reference SchemaMap Stat Stats SyncEngine TableMap VectorProjection run_cycle"
    ),
    "syncline.messages": (
        "CycleProgress CycleStatus Fallback FallbackReason GraphRef GraphStatus LockHolder Message ProviderFallback"
        " ProviderState SyncResult TableProgress VectorProgress"
    ),
    "syncline.migrations": "migrate_bookkeeping migrate_write",
    "syncline.provider": (
        "API_VERSION KINDS CycleBudget EventLog GraphSchema GraphVectors Meter NoOptions NullMeter OtherKind Provider"
        " ProviderKind ProviderServices RetryRules RunIdentity SyncContext SyncProvider SyncResult"
    ),
    "syncline.services": "Role Services",
    "syncline.testing": "exercise_provider",
    "syncline.testing.graphs": "TestGraph on_target read write",
}


@pytest.mark.parametrize("module", DOORS)
def test_public_module_exports(module: str) -> None:
    exported = importlib.import_module(module)
    assert [name for name in DOORS[module].split() if not hasattr(exported, name)] == []
