"""`syncline logs` and `syncline psql`: what was said of a graph, and its databases at hand."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from syncline.messages.sync import SyncResult
from syncline.provider import SyncContext
from syncline.testing.lab import SyncLab
from syncline.testing.providers import FakeProvider, sync_result
from tests.kit.command_line import CommandLine

PSQL = "from syncline.cli import app; app()"
SECRET = "h%40nter2"


async def test_logs_has_the_runs_of_a_graph_by_time(lab: SyncLab, syncline: CommandLine) -> None:
    """Starts and ends, and why a run failed; of this graph alone."""
    outcomes = [sync_result(rows=3), sync_result(error="the table was dropped")]

    async def cycle(context: SyncContext) -> SyncResult:
        return outcomes.pop(0)

    graph = await lab.add_graph(FakeProvider(lab.unique("told"), cycle=cycle))
    other = await lab.add_graph("default")
    nothing = await syncline("logs", graph.slug)
    assert (nothing.status, "Nothing was said" in nothing.err) == (1, True)
    await lab.run(graph)
    await lab.failure(await lab.start(graph))
    told: Any = await syncline.answer("logs", graph.slug, "--since", "5m")
    assert [line["at"] for line in told] == sorted(line["at"] for line in told)
    texts = [line["text"] for line in told]
    assert [text.partition(" ")[2].partition(" ")[0] for text in texts] == [
        "started",
        "completed",
        "started",
        "failed",
    ]
    assert "the table was dropped" in texts[-1]
    assert (await syncline("logs", other.slug)).status == 1
    assert (await syncline("logs", graph.slug, "--since", "yesterday")).status == 2
    assert (await syncline("logs", graph.slug, "--since", "2999-01-01")).status == 1


async def test_psql_opens_a_graphs_schema_and_never_shows_the_password(
    lab: SyncLab, with_stores: Callable[[SyncLab], CommandLine]
) -> None:
    graph = await lab.add_graph("default", prepare=True)
    at_hand = with_stores(lab)
    environment = dict(at_hand._environment)
    environment["SYNCLINE_GRAPH_DSN"] = environment["SYNCLINE_GRAPH_DSN"].replace(
        "postgres@", f"postgres:{SECRET}@"
    )
    shown = await CommandLine(environment, at_hand._folder)("psql", "graph", graph.slug, "--print")
    assert (shown.status, f"search_path={graph.schema_name}" in shown.out) == (0, True)
    assert "nter2" not in shown.out + shown.err

    def asked() -> str:
        done = subprocess.run(
            [sys.executable, "-c", PSQL, "psql", "graph", graph.slug],
            env={"PATH": os.environ["PATH"], "HOME": str(at_hand._folder), **environment},
            cwd=at_hand._folder,
            input="SELECT current_schema(), current_setting('application_name')",
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    said = await asyncio.to_thread(asked)
    assert graph.schema_name in said
    assert "syncline psql" in said
