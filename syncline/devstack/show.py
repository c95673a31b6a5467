"""Showing the board until there is a reason to stop: live in a terminal, by lines elsewhere."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

from rich.console import Console, RenderableType
from rich.live import Live
from temporalio.service import RPCError

from syncline.devstack.board import Board, GraphRow
from syncline.devstack.view import change_line, live_view

__all__ = ["BoardShow"]

_READ_TICKS = 2
"""Temporal is asked every so many seconds; the live table counts down every second."""


class BoardShow:
    """Reads the board now and then and shows it."""

    def __init__(self, board: Board, *, console: Console, places: Mapping[str, str]) -> None:
        self._board = board
        self._console = console
        self._places = places
        self._rows: list[GraphRow] = []
        self._told: dict[str, str] = {}

    async def forever(self) -> None:
        """Show until cancelled."""
        await self._show(lambda: False)

    async def until_synced(self, slugs: Collection[str], began: datetime) -> None:
        """Show until each graph has drained in a run that began after `began`, and print a final table."""
        synced: set[str] = set()

        def all_synced() -> bool:
            synced.update(
                row.slug
                for row in self._rows
                if row.last and row.last.drained and row.last.started_at >= began
            )
            return synced.issuperset(slugs)

        await self._show(all_synced)
        if not self._console.is_terminal:
            self._console.print(self._view())

    def shortfall(self, slugs: Collection[str], began: datetime) -> str:
        """Say, per graph, how far it got after `began`."""
        rows = {row.slug: row for row in self._rows}
        return "; ".join(f"{slug} {_progress(rows.get(slug), began)}" for slug in slugs)

    async def _show(self, enough: Callable[[], bool]) -> None:
        if not self._console.is_terminal:
            for label, place in self._places.items():
                self._console.print(f"{label}: {place}" if label else place, markup=False, soft_wrap=True)
            while True:
                if await self._read_once() and enough():
                    return
                await asyncio.sleep(_READ_TICKS)
        with Live(self._view(), console=self._console, auto_refresh=False) as live:
            ticks = 0
            while True:
                if ticks % _READ_TICKS == 0 and await self._read_once() and enough():
                    live.update(self._view(), refresh=True)
                    return
                live.update(self._view(), refresh=True)
                ticks += 1
                await asyncio.sleep(1)

    async def _read_once(self) -> bool:
        """Read the board and tell changes where there is no live table; say if Temporal answered."""
        try:
            self._rows = await self._board.read()
        except RPCError:
            # The rows that were read last stay; if the server is gone for good, the stack says so.
            return False
        if not self._console.is_terminal:
            for row in self._rows:
                line = change_line(row)
                if line is not None and row.last is not None and self._told.get(row.slug) != row.last.run_id:
                    self._told[row.slug] = row.last.run_id
                    self._console.print(line, markup=False, soft_wrap=True)
        return True

    def _view(self) -> RenderableType:
        return live_view(self._rows, self._places, now=datetime.now(UTC))


def _progress(row: GraphRow | None, began: datetime) -> str:
    if row is not None and row.last is not None and row.last.started_at >= began:
        return f"ended as {row.last.outcome}" + (f" ({row.last.failure})" if row.last.failure else "")
    if row is not None and row.running_since is not None:
        return f"has been running since {row.running_since.astimezone():%H:%M:%S}"
    return "has not run"
