"""The generations of a graph's collections: the main one, and a second while its embedding model changes."""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from syncline.engine.template import sql

__all__ = ["Generations", "SecondGeneration", "read_generations"]


@dataclass(frozen=True, kw_only=True)
class SecondGeneration:
    """The collections of the model that a graph changes to."""

    generation: int
    started_at: datetime
    filled_at: datetime | None = None
    """When it first owed nothing."""
    switched_at: datetime | None = None
    """Since when readers look at it; None: at the main one."""


@dataclass(frozen=True, kw_only=True)
class Generations:
    """Which generations a graph has, as its graph-db says."""

    main: int = 1
    second: SecondGeneration | None = None

    @property
    def live(self) -> int:
        """The one that readers are to look at."""
        second = self.second
        return self.main if second is None or second.switched_at is None else second.generation


async def read_generations(target: asyncpg.Connection) -> Generations:
    """Read them over a connection whose search_path is the graph's schema."""
    main = await target.fetchval(sql("generations"))
    if main is None:
        return Generations()
    row = await target.fetchrow(sql("second"))
    return Generations(main=main, second=None if row is None else SecondGeneration(**row))
