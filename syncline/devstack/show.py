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
    """Reads the board now and then and shows it. Runs that started before `began` are an earlier stack's."""

    def __init__(self, board: Board, *, console: Console, places: Mapping[str, str], began: datetime) -> None:
        self._board = board
        self._console = console
        self._places = places
        self._began = began
        self._rows: list[GraphRow] = []
        self._told: dict[str, str] = {}
        self._synced: set[str] = set()

    async def forever(self) -> None:
        """Show until cancelled."""
        await self._show(lambda: False)

    async def until_synced(self, slugs: Collection[str]) -> None:
        """Show until each graph has drained in a run of this stack, and print a final table."""
        await self._show(lambda: self._synced.issuperset(slugs))
        if not self._console.is_terminal:
            self._console.print(live_view(self._rows, {}, now=datetime.now(UTC)))

    def shortfall(self, slugs: Collection[str]) -> str:
        """Say how far the graphs got that have not drained yet."""
        rows = {row.slug: row for row in self._rows}
        return "; ".join(
            f"{slug} {self._progress(rows.get(slug))}" for slug in slugs if slug not in self._synced
        )

    def _progress(self, row: GraphRow | None) -> str:
        if row is not None and row.last is not None and row.last.started_at >= self._began:
            return f"ended as {row.last.outcome}" + (f" ({row.last.failure})" if row.last.failure else "")
        if row is not None and row.running_since is not None:
            return f"has been running since {row.running_since.astimezone():%H:%M:%S}"
        return "has not run"

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
        for row in self._rows:
            last = row.last
            if last is None or last.started_at < self._began or self._told.get(row.slug) == last.run_id:
                continue
            self._told[row.slug] = last.run_id
            if last.drained:
                self._synced.add(row.slug)
            if not self._console.is_terminal:
                self._console.print(change_line(row.slug, last), markup=False, soft_wrap=True)
        return True

    def _view(self) -> RenderableType:
        return live_view(self._rows, self._places, now=datetime.now(UTC))
