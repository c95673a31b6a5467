"""Changes beside a load: nodes are changed all the while, and each change is looked for until readers have it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg

__all__ = ["Seen"]

_EVERY = 0.1


@dataclass
class Seen:
    """Changes nodes ten times a second, two known ones for each new one."""

    writer: asyncpg.Connection
    reader: asyncpg.Connection
    nodes: int
    """The keys of known nodes are `prefix` with 1 to this."""
    prefix: str
    waited: list[float] = field(default_factory=list)
    """Seconds from commit to visible."""
    _coming: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def watch(self, load: "asyncio.Task[object]", again: Callable[[], Awaitable[object]]) -> None:
        """Write until the load has ended, then look on while `again` runs; raise AssertionError if one is lost."""
        began, number = time.monotonic(), 0
        while not load.done():
            if time.monotonic() >= began + number * _EVERY:
                number += 1
                await self._change(number)
            await self._look()
        after = asyncio.ensure_future(again())
        while self._coming and not after.done():
            await self._look()
        await after
        await self._look()
        assert not self._coming, f"{len(self._coming)} changes are not visible after the load"

    async def _change(self, number: int) -> None:
        key = f"fresh{number}" if number % 3 == 0 else f"{self.prefix}{number * 7919 % self.nodes + 1}"
        concept = f"changed {number}"
        await self.writer.execute(
            "INSERT INTO kg.write_nodes (id, concept) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET concept = $2",
            key,
            concept,
        )
        self._coming[key] = concept, time.monotonic()

    async def _look(self) -> None:
        rows = await self.reader.fetch(
            "SELECT key, concept FROM kg.nodes"
            " WHERE id IN (SELECT syncline.key_uuid(k) FROM unnest($1::text[]) k)",
            list(self._coming),
        )
        for row in rows:
            concept, committed = self._coming[row["key"]]
            if row["concept"] == concept:
                self.waited.append(time.monotonic() - committed)
                del self._coming[row["key"]]
        await asyncio.sleep(_EVERY / 4)

    def quantile(self, part: float) -> float:
        """Return a quantile of the seconds."""
        ordered = sorted(self.waited)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
