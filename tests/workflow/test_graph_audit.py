"""Who changed graphs is written down with the change, and some workers do nothing that changes."""

from typing import Any

import pytest
import structlog.testing

from activities.operations import OperationActivities
from syncline import registry as registry_module
from syncline.control.embedding_record import EmbeddingRecord
from syncline.registry import Registry
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine
from worker import create_operations_worker


async def test_what_is_done_to_graphs_is_audited_with_who_started_it(
    lab: SyncLab, syncline: CommandLine
) -> None:
    slug = lab.unique("audited")
    added = await syncline("graph", "add", slug, "--no-schedule", "--reason", "a new customer")
    assert added.status == 0, added.err
    # A retry of what is there already changes nothing, and is no second line.
    assert (await syncline("graph", "add", slug, "--no-schedule")).status == 0
    for command in ("pause", "archive"):
        assert (await syncline("graph", command, slug, "--reason", f"to {command}")).status == 0
    secret = (
        '{"sync": {"provider": "default"}, "dimensions": {"provider": "x", "options": {"key": "hunter2"}}}'
    )
    assert (await syncline("graph", "set", slug, "--composition", secret)).status == 0
    page: Any = await syncline.answer("graph audit", slug)
    lines = [(entry["action"], entry["fields"], entry["why"]) for entry in page["entries"]]
    assert lines == [
        ("change", ["composition"], ""),
        ("archive", ["status"], "to archive"),
        ("pause", ["status"], "to pause"),
        ("add", [], "a new customer"),
    ]
    assert "hunter2" not in str(page)
    for entry in page["entries"]:
        assert entry["graph"] == slug
        assert entry["who"]
        # The caller's identity, as it is in the run's first event.
        described = lab.client.identity
        assert entry["starter"].partition("@")[2] == described.partition("@")[2]
        assert entry["run_id"]
    table = await syncline("graph", "audit", "--limit", "2")
    assert "more: --before" in table.out
    refused = await syncline("graph", "audit", "no-such-graph")
    assert refused.status == 2


@pytest.mark.parametrize(("served", "reads"), [("read", True), ("none", False)])
async def test_a_worker_that_serves_reading_alone_changes_nothing(
    idle_lab: SyncLab, syncline: CommandLine, served: str, reads: bool
) -> None:
    lab = idle_lab
    lab.services.settings = lab.services.settings.model_copy(update={"operations": served})
    operations = OperationActivities(lab.services, beat_seconds=0.2)
    slug = lab.unique("kept")
    async with lab.worker(), create_operations_worker(lab.client, operations, lab.services.settings):
        refused = await syncline("graph", "add", slug)
        assert refused.status == 2
        assert f"SYNCLINE_OPERATIONS={served}" in refused.err
        listed = await syncline("graph", "list", "--json")
        assert (listed.status == 0) is reads
    assert [graph for graph in await lab.services.graphs.list() if graph.slug == slug] == []


class _Point:
    """An entry point whose import is told."""

    def __init__(self, name: str, distribution: str, loaded: list[str]) -> None:
        self.name, self.value = name, f"{name}:make"
        self.dist = type("Dist", (), {"name": distribution, "version": "1.0"})()
        self._loaded = loaded

    def load(self) -> object:
        self._loaded.append(f"{self.dist.name}:{self.name}")
        raise ImportError("only whether it was imported matters")


@pytest.mark.parametrize(
    ("allowed", "imported"),
    [
        (None, ["Acme_Sync:acme", "evil:acme"]),
        (set(), []),
        ({"acme-sync"}, ["Acme_Sync:acme"]),
        ({"acme-sync:acme"}, ["Acme_Sync:acme"]),
        ({"acme"}, ["Acme_Sync:acme", "evil:acme"]),
        ({"evil:other"}, []),
    ],
)
def test_plugins_that_are_not_named_are_not_imported(
    monkeypatch: pytest.MonkeyPatch, allowed: set[str] | None, imported: list[str]
) -> None:
    loaded: list[str] = []
    points = [_Point("acme", "Acme_Sync", loaded), _Point("acme", "evil", loaded)]
    monkeypatch.setattr(registry_module.metadata, "entry_points", lambda group: points)
    monkeypatch.setattr(registry_module, "EntryPoint", _Point)
    registry = Registry()
    with structlog.testing.capture_logs() as lines:
        registry.load(allowed=allowed)
    assert loaded == imported
    told = [line["distribution"] for line in lines if line["event"].startswith("plugin not allowed")]
    assert len(told) == 2 - len(imported)
    unknown = [str(problem) for problem in registry.problems if "SYNCLINE_PLUGINS" in str(problem)]
    assert len(unknown) == (1 if allowed == {"evil:other"} else 0)


async def test_an_embedding_is_accepted_by_command_and_audited(lab: SyncLab, syncline: CommandLine) -> None:
    slug = lab.unique("embedded")
    added = await syncline("graph", "add", slug, "--no-schedule")
    assert added.status == 0, added.err
    accepted = await syncline("graph", "set", slug, "--embedding", "openai-large-8", "--reason", "better")
    assert accepted.status == 0, accepted.err
    records = {of: record for of, _, record in await lab.services.embedding_records.of_graphs()}
    assert records[slug] == EmbeddingRecord(embedding="openai-large-8")
    (problem,) = [found for found in await lab.services.foreign_vectors() if found.graph == slug]
    assert problem.found == "openai-large-8"
    page: Any = await syncline.answer("graph audit", slug)
    newest = page["entries"][0]
    assert (newest["action"], newest["why"], newest["fields"]) == ("embedding", "better", ["openai-large-8"])
    mine = lab.services.embedding.name
    assert f"has embedding {mine}, and writes no vectors of this graph now" in accepted.err
    right = await syncline("graph", "set", slug, "--embedding", mine)
    assert (right.status, right.err) == (0, "")
