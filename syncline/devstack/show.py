"""Shows the status of the graphs until there is a reason to stop: live in a terminal, else by lines."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from temporalio.client import Client

from syncline.errors import TemporalUnavailable
from syncline.messages.sync import CycleStatus
from syncline.quoting import counted
from syncline.temporal.overview import GraphOverview
from syncline.temporal.overview_reader import OverviewReader
from syncline.temporal.runs import ListedRun, Outcome, outcome_of

__all__ = ["StatusShow", "StatusTable"]

_PAUSE: Final = 2.0

StatusTable = Callable[[Sequence[GraphOverview]], RenderableType]


class StatusShow:
    """Asks for every graph's state and shows `table` of it, with the addresses in `places` below.

    A worker of `task_queue` is asked for what the state tables say; None: only runs are judged.

    Runs that started before `began` are an earlier stack's.
    """

    def __init__(
        self,
        client: Client,
        *,
        table: StatusTable,
        console: Console,
        places: Mapping[str, str],
        began: datetime,
        task_queue: str | None = None,
    ) -> None:
        self._client = client
        self._reader = OverviewReader(client, task_queue=task_queue)
        self._table = table
        self._console = console
        self._places = places
        self._began = began
        self._graphs: Sequence[GraphOverview] = ()
        self._ended: dict[str, tuple[str, str]] = {}
        self._synced: set[str] = set()

    async def run(self, *, until_synced: Collection[str] | None = None) -> None:
        """Show until cancelled, or until each of these graphs has drained in a run of this stack."""
        if not self._console.is_terminal:
            for label, place in self._places.items():
                self._print_line(f"{label}: {place}" if label else place)
        # Where there is no terminal it prints the last table alone.
        with Live(self._view(), console=self._console, auto_refresh=False) as live:
            while True:
                await self._read()
                live.update(self._view(), refresh=True)
                if until_synced is not None and self._synced.issuperset(until_synced):
                    return
                await asyncio.sleep(_PAUSE)

    def shortfall(self, slugs: Collection[str]) -> str:
        """Say how far the graphs got that have not drained yet."""
        standing = {graph.graph: f"{graph.graph}: {graph.standing}" for graph in self._graphs}
        ended = {slug: line for slug, (_, line) in self._ended.items()}
        said = {**standing, **ended}
        return "; ".join(said.get(slug, f"{slug}: never ran") for slug in slugs if slug not in self._synced)

    async def _read(self) -> None:
        """Read the status, and note the runs of this stack that have ended."""
        try:
            self._graphs = await self._reader.read()
        except TemporalUnavailable:
            # What was read last stays; if the server is gone for good, the stack says so.
            return
        for graph in self._graphs:
            run = graph.last_run
            if run is None or run.started_at < self._began:
                continue
            if graph.graph in self._ended and self._ended[graph.graph][0] == run.run_id:
                continue
            outcome = await outcome_of(self._client, run)
            self._ended[graph.graph] = run.run_id, _line(graph.graph, run, outcome)
            if outcome.cycle is CycleStatus.DRAINED:
                self._synced.add(graph.graph)
            if not self._console.is_terminal:
                self._print_line(self._ended[graph.graph][1])

    def _view(self) -> RenderableType:
        table = self._table(self._graphs)
        if not self._console.is_terminal:
            return Group(table, Text())  # so that what follows begins a line
        places = Table.grid(padding=(0, 2))
        places.add_column(style="dim", no_wrap=True)
        places.add_column(overflow="fold")
        for label, place in self._places.items():
            places.add_row(label, place)
        return Group(Text(), table, Text(), places)

    def _print_line(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def _line(slug: str, run: ListedRun, outcome: Outcome) -> str:
    at = "" if run.ended_at is None else f" at {run.ended_at.astimezone(UTC):%H:%M:%S}Z"
    provider = (run.provider or "no provider") + (" (fallback)" if run.fallback else "")
    parts = [f"{slug}: {outcome.cycle or run.status}{at}", provider]
    parts += [counted(run.rows or 0, "row"), counted(run.failures or 0, "failure")]
    return ", ".join([*parts, outcome.error] if outcome.error else parts)
