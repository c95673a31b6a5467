"""News: whether the write-db shows what a cycle has not captured.

That is one look at a snapshot, where no transaction has begun or ended since the last one.
"""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from syncline.engine.render.statements import SchemaStatements
from syncline.engine.schema_transaction import KEPT_BY_INDEX
from syncline.engine.template import sql
from syncline.engine.visible import shows_newer
from syncline.errors import StoreError
from syncline.provider import GraphSchema
from syncline.stores.horizon import HORIZON
from syncline.stores.tenants import reading

__all__ = ["News", "Shown", "look_for_news"]

Snapshot = tuple[int, int]
_FIRST: Final = 2.0
"""Seconds that what is interrupted by news has for itself."""
_EVERY: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What one look shows."""

    snapshot: Snapshot | None
    """None: it may show more a moment later."""
    newer: bool = False
    """Whether a table shows rows from the asked transaction on."""
    below: int = 0
    """The transaction below which all have ended."""

    def can_be_read(self, horizon: int) -> bool:
        """Return whether a pass would find more than one with that horizon did."""
        return self.newer and self.below > horizon


async def look_for_news(
    write: GraphSchema, statements: SchemaStatements, horizon: int, *, quiet: Snapshot | None
) -> Shown | None:
    """Return what is shown from transaction `horizon` on; None if nothing was written since `quiet`."""
    async with write.store.driver() as source:
        row = await source.fetchrow(sql("linger_snapshot", horizon=HORIZON))
        snapshot = (row["xmin"], row["xmax"])
        if snapshot == quiet:
            return None
        asked = statements.sources(write.schema, list(statements.tables))
        query = sql("linger_newer", horizon=HORIZON, shown=shows_newer(statements, write.schema, either=True))
        async with reading(source, asked, one_moment=True, first=KEPT_BY_INDEX):
            row = await source.fetchrow(query, str(horizon))
    # The second horizon may be lower, while a transaction elsewhere ends: then what it shows is not all.
    quiet = None if row["below"] < snapshot[0] else snapshot
    return Shown(snapshot=quiet, newer=row["newer"], below=row["below"])


class News:
    """Looks for news in the background, for what they may interrupt: after a while, twice a second."""

    def __init__(
        self, write: GraphSchema, statements: SchemaStatements, horizon: int, *, watching: bool = True
    ) -> None:
        """Without `watching`, none ever come."""
        self._write, self._statements, self._horizon, self._watching = write, statements, horizon, watching
        self._task: asyncio.Task[None] | None = None
        self.came = False

    async def __aenter__(self) -> Self:
        if self._watching:
            self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        quiet: Snapshot | None = None
        pause = _FIRST
        while not self.came:
            await asyncio.sleep(pause)
            began = time.monotonic()
            try:
                seen = await look_for_news(self._write, self._statements, self._horizon, quiet=quiet)
            except StoreError:
                # The next pass says what is wrong with it.
                return
            if seen is not None:
                # Rows above the horizon can be read once it has moved, and then the snapshot is another one.
                self.came, quiet = seen.can_be_read(self._horizon), seen.snapshot
            pause = max(_EVERY, 10 * (time.monotonic() - began))
