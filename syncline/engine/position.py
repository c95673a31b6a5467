"""Position: which past of the write-db a graph's cursors are of, by a token that only that past has.

Before a cursor is moved, a new token is committed in the write-db, after the horizon was asked for: so a past
that has the token has every transaction below that horizon too. The graph-db remembers it with its cursors.
Numbers count up within a branch, and another branch begins when a position turned out to be of another past:
so a graph-db that was put back itself, or whose commit was lost, is known by an earlier number and need read
nothing again.
"""

import json
from dataclasses import dataclass
from typing import Self
from uuid import uuid4

import asyncpg

from syncline.engine.render.statements import positions_of
from syncline.engine.template import sql
from syncline.stores.tenants import writing

__all__ = ["Known", "Position", "write_position"]


@dataclass(frozen=True, kw_only=True)
class Position:
    """What the graph-db remembers."""

    branch: str
    number: int
    token: str

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Return what `str` gave; None for a graph-db that has remembered nothing yet."""
        if text is None:
            return None
        branch, number, token = text.split("/")
        return cls(branch=branch, number=int(number), token=token)

    def __str__(self) -> str:
        return f"{self.branch}/{self.number}/{self.token}"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the write-db remembers of a reader. Without a branch it has never met it."""

    branch: str | None
    number: int | None
    token: str | None
    """That of the reader's own number, if it is recent enough to be kept."""
    cleared_below: int
    """Below it, deleted keys may have been cleared away."""

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Return the answer to `position_known`; None where it could not be asked."""
        if text is None:
            return None
        branch, number, token, cleared_below = json.loads(text)
        return cls(branch=branch, number=number, token=token, cleared_below=cleared_below or 0)

    def contradicts(self, position: Position) -> str | None:
        """Return why the position cannot be of this past; None if it is."""
        if self.branch is None or self.number is None:
            return "it does not know this graph-db"
        if self.branch != position.branch or self.token not in (None, position.token):
            return "another past"
        return "an earlier point in time" if self.number < position.number else None


async def write_position(source: asyncpg.Connection, schema: str, reader: str, *, anew: bool) -> Position:
    """Commit another token in the write-db, in a transaction of its own; `anew` begins a branch."""
    token = str(uuid4())
    positions = positions_of(schema)
    # A token that is there after a crash must have all before it there too.
    async with writing(source, [positions], lock_timeout="30s", first="SET LOCAL synchronous_commit = local"):
        statement = sql("position_write", positions=positions)
        row = await source.fetchrow(statement, reader, str(uuid4()), token, anew)
    return Position(branch=row["branch"], number=row["number"], token=token)
