"""Every listing on terminals of 80 to 200 columns: what matters never vanishes, and no line is cut or too long."""

import io
import re
from collections.abc import Callable

import asyncpg
import pytest
from rich.console import Console

from providers.default import DefaultSyncProvider
from syncline.cli import tables
from syncline.cli.tables import FittedTable
from syncline.temporal.schedules.graph import ensure_schedule
from syncline.testing.lab import SyncLab
from tests.kit.command_line import CommandLine

WIDTHS = (80, 100, 120, 200)


def rendered(table: FittedTable, width: int) -> list[str]:
    written = io.StringIO()
    Console(file=written, width=width, force_terminal=False).print(table)
    return written.getvalue().splitlines()


def unbroken(text: str) -> str:
    return "".join(text.split())


@pytest.mark.long(
    "unit/test_tables.py::test_no_cell_is_cut_off",
    "unit/test_tables.py::test_a_table_that_cannot_fit_is_listed_field_by_field",
)
async def test_listings_lose_nothing_that_matters(
    lab: SyncLab,
    temporal_only: Callable[[SyncLab], CommandLine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[FittedTable] = []
    monkeypatch.setattr(tables, "_print_plain", found.append)
    syncline = temporal_only(lab)
    lab.services.registry.register("sync", DefaultSyncProvider(), "syncline")
    graph = await lab.add_graph(
        "default", prepare=True, schedule={"every_seconds": 86_400}, slug=lab.unique("a-graph-of-a-long-name")
    )
    settings = lab.services.settings
    path = {"search_path": graph.schema_name}
    target = await asyncpg.connect(settings.graph_dsn.get_secret_value(), server_settings=path)
    await target.execute("ALTER TABLE nodes ADD CONSTRAINT no_such_concept CHECK (concept <> 'no')")
    await target.close()
    source = await asyncpg.connect(settings.write_dsn.get_secret_value(), server_settings=path)
    await source.execute(
        "INSERT INTO write_nodes (id, concept, parent_id)"
        " VALUES ('n', 'no', NULL), ('c', 'child', 'nowhere'), ('y', 'yes', NULL)"
    )
    await source.close()
    await ensure_schedule(lab.client, graph, task_queue=lab.task_queue)
    await lab.run(graph)
    slug = graph.slug
    assert (await syncline("graph", "pause", slug, "--reason", "a look at what was refused")).status == 0
    found.clear()
    commands = (
        ("status",),
        ("runs", slug),
        ("graph", "list"),
        ("graph", "audit", slug),
        ("schedule", "list"),
        ("failures", "summary", slug),
        ("failures", "list", slug),
        ("parked", slug),
        ("parked", slug, "--table", "nodes"),
        ("providers",),
        ("usage", slug),
        ("doctor",),
        ("verify", slug),
    )
    for command in commands:
        before = len(found)
        said = await syncline(*command)
        assert len(found) > before, (command, said.out, said.err)
    for table in found:
        for width in WIDTHS:
            lines = rendered(table, width)
            assert all(len(line) <= width for line in lines), (table.header, width)
            text = unbroken(" ".join(line for line in lines if not line.startswith("left out")))
            shown = table.shown_at(width) or table.header
            left_out = [name for name in table.header if name not in shown]
            assert set(left_out) <= set(table.spare)
            for row in table.rows:
                for name, cell in zip(table.header, row, strict=True):
                    assert name in left_out or unbroken(cell) in text, (name, cell, width)
            if left_out:
                assert lines[-1].startswith("left out") or len(lines[-1]) < 80
    assert any(table.shown_at(80) != table.header for table in found)
    cells = [cell for table in found for row in table.rows for cell in row]
    times = [cell for cell in cells if re.match(r"\d{4}-\d\d-\d\d \d\d:", cell)]
    assert times
    assert all(time.endswith("Z") for time in times)
