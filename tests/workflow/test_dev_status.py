"""What `syncline dev` shows while it runs: the table of `syncline status`, and the runs that end."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from syncline.cli.status import status_table
from syncline.devstack.show import StatusShow
from syncline.errors import StoreRejected
from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.testing.lab import SyncLab
from syncline.testing.providers import FakeProvider, sync_result


@pytest.mark.parametrize("terminal", [True, False])
async def test_show_ends_once_every_graph_is_synced(lab: SyncLab, terminal: bool) -> None:
    async def fail_at_first(context: SyncContext) -> SyncResult:
        if len(provider.contexts) == 1:
            raise StoreRejected("graph", "it is full", sqlstate="53100")
        return sync_result(rows=1234)

    provider, written = FakeProvider(cycle=fail_at_first), io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=200)
    show = StatusShow(
        lab.client,
        table=status_table,
        console=console,
        places={"Web UI": "http://127.0.0.1:8233"},
        began=datetime.now(UTC),
    )
    graph = await lab.add_graph(provider)
    assert show.shortfall([graph.slug]) == f"{graph.slug}: never ran"
    await lab.failure(await lab.start(graph))
    await show._read()
    assert "it is full" in show.shortfall([graph.slug])
    await lab.run(graph)
    await show.run(until_synced=[graph.slug])
    assert show.shortfall([graph.slug]) == ""
    lines = written.getvalue().splitlines()
    # Of the live table and of the last one: the row of `status`.
    assert any(graph.slug in line and "1,234" in line and "fake" in line for line in lines)
    assert any("http://127.0.0.1:8233" in line for line in lines)
    assert terminal or written.getvalue().endswith("\n")
    told = [line for line in lines if line.startswith(f"{graph.slug}: ")]
    assert len(told) == (0 if terminal else 2)


async def test_show_leaves_runs_of_an_earlier_stack_alone(lab: SyncLab) -> None:
    graph = await lab.add_graph(FakeProvider())
    await lab.run(graph)
    console = Console(file=io.StringIO(), width=200)
    show = StatusShow(lab.client, table=status_table, console=console, places={}, began=datetime.now(UTC))
    await show._read()
    assert show.shortfall([graph.slug]) == f"{graph.slug}: ok"
