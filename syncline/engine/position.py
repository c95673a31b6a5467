"""Position: identifies the history of the write-db that a graph's cursors belong to, by a unique token.

Before a cursor moves, a new token is committed in the write-db, after the horizon was read: a history with
the token contains every transaction below that horizon too. The graph-db stores the token with its cursors.
Numbers count up within a branch; a new branch starts when a position turns out to be of another history. So a
graph-db that was itself restored, or whose commit was lost, is recognized by an earlier number and need not
read anything again.
"""

import json
from dataclasses import dataclass
from typing import Final, Self
from uuid import uuid4

import asyncpg

from syncline.engine.render.statements import positions_of
from syncline.engine.template import sql
from syncline.stores.tenants import writing

__all__ = ["Known", "Position", "write_position"]


@dataclass(frozen=True, kw_only=True)
class Position:
    """The position that the graph-db stores."""

    branch: str
    number: int
    token: str

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Parse the result of `str`; None for a graph-db without a stored position."""
        if text is None:
            return None
        branch, number, token = text.split("/")
        return cls(branch=branch, number=int(number), token=token)

    def __str__(self) -> str:
        return f"{self.branch}/{self.number}/{self.token}"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the write-db stores about a reader. Without a branch it does not know the reader."""

    branch: str | None
    number: int | None
    token: str | None
    """The token of the reader's own number, if recent enough to be kept."""
    cleared_below: int
    """Deleted keys below it may have been pruned."""
    recovered: bool = False
    """Whether the server has recovered from a crash since the reader's last token: what had not been flushed
    is lost."""

    @classmethod
    def from_text(cls, text: str | None) -> Self | None:
        """Parse the answer of `position_known`; None where it was not available."""
        if text is None:
            return None
        branch, number, token, cleared_below, recovered = json.loads(text)
        return cls(
            branch=branch,
            number=number,
            token=token,
            cleared_below=cleared_below or 0,
            recovered=bool(recovered),
        )

    def contradicts(self, position: Position) -> str | None:
        """Return why the position cannot belong to this history; None if it does."""
        if self.branch is None or self.number is None:
            return "it does not know this graph-db"
        if self.branch != position.branch or self.token not in (None, position.token):
            return "another past"
        return "an earlier point in time" if self.number < position.number else None


_UNTOLD: Final = (
    asyncpg.FeatureNotSupportedError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.UndefinedFunctionError,
)
"""How a server refuses to say on which timeline it is, to a role that may ask."""


async def write_position(
    source: asyncpg.Connection, schema: str, reader: str, *, anew: bool, timeline: bool = False
) -> tuple[Position, int | None]:
    """Commit a new token in the write-db, in a separate transaction; `anew` starts a branch.

    With `timeline`, also return the one that it was written on; None where that is not told.
    """
    if timeline:
        try:
            return await _written(source, schema, reader, anew=anew, file=sql("position_file").strip())
        except _UNTOLD:
            if source.is_closed():
                raise
    return await _written(source, schema, reader, anew=anew, file="")


async def _written(
    source: asyncpg.Connection, schema: str, reader: str, *, anew: bool, file: str
) -> tuple[Position, int | None]:
    token = str(uuid4())
    positions = positions_of(schema)
    # If the token survives a crash, everything before it must have survived too.
    async with writing(source, [positions], lock_timeout="30s", first="SET LOCAL synchronous_commit = local"):
        statement = sql("position_write", positions=positions, file=file)
        row = await source.fetchrow(statement, reader, str(uuid4()), token, anew)
    position = Position(branch=row["branch"], number=row["number"], token=token)
    return position, int(row["file"][:8], 16) if file else None
