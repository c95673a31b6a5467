"""Checkpoints: states of a graph to go back to when the write-db has lost its last transactions.

A cycle leaves a token in the write-db before it reads anything (`syncline.engine.position`). Transactions are
lost from the end, so a history with that token has everything that was visible before it, hence everything
that the graph has read by then: the token's cursors are a checkpoint. After it, the keys of all that is read
are noted with each batch. If a standby is promoted, or the write-db is put back, the newest checkpoint whose
token is still there tells what to read again: what is noted since, by key, and what comes after its cursors.
Transaction ids of the lost part are given out again, so nothing at or above those cursors is believed.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import asyncpg

from syncline.engine.comparison import FEW_ROWS
from syncline.engine.position import Position
from syncline.engine.render.fragments import commas
from syncline.engine.render.statements import (
    DELETES,
    Cursor,
    SchemaStatements,
    TableStatements,
    positions_of,
)
from syncline.engine.template import sql
from syncline.sql import literal, quoted
from syncline.stores.tenants import reading

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "RecentKeys",
    "common_checkpoint",
    "forget_checkpoints",
    "known_tokens",
    "large_parts",
    "of_all",
]

SECONDS: Final = 5.0
"""Least time from one checkpoint to the next."""
LONGEST: Final = 600.0
"""Age at which the last checkpoint is given up, if none can be taken any longer."""
KEYS: Final = 100_000
"""Most keys to request by key. Where more were read since a checkpoint, reading everything is no dearer."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state that a graph had when run `fence` left its token."""

    fence: int
    seq: int
    """What was noted later was read later."""
    at: datetime
    cursors: Mapping[str, Cursor]

    @classmethod
    def of(cls, row: asyncpg.Record) -> Self:
        """Return it from a row of `checkpoint_common`."""
        cursors = {name: Cursor.of_stored(*at) for name, at in json.loads(row["cursors"]).items()}
        return cls(fence=row["fence"], seq=row["seq"], at=row["at"], cursors=cursors)

    @property
    def below(self) -> int:
        """The transaction below which none of its cursors is: what is below it has never been doubted."""
        return min(cursor.xid for cursor in self.cursors.values())


async def known_tokens(source: asyncpg.Connection, schema: str, reader: str) -> Sequence[str]:
    """Return the last tokens that the write-db names for a reader, as positions."""
    positions = positions_of(schema)
    async with reading(source, [positions]):
        known = await source.fetchrow(sql("position_tokens", positions=positions), reader)
    if known is None:
        return ()
    return [
        str(Position(branch=known["branch"], number=known["number"] - behind, token=token))
        for behind, token in enumerate(known["tokens"])
    ]


async def common_checkpoint(target: asyncpg.Connection, positions: Sequence[str]) -> Checkpoint | None:
    """Return the newest checkpoint of a history that has one of these positions; None if none is known to be.

    Within a transaction on the graph's schema. One of them has to be of a run of this graph: its number alone
    proves nothing.
    """
    row = await target.fetchrow(sql("checkpoint_common"), list(positions)) if positions else None
    return None if row is None else Checkpoint.of(row)


async def large_parts(
    target: asyncpg.Connection, statements: SchemaStatements, checkpoint: Checkpoint, *, share: float
) -> Sequence[tuple[str, int, Sequence[asyncpg.Record]]]:
    """Return the tables of which more than a share of the rows was read since, if all of these were gone.

    Of each its name, how many may leave, and their keys (`key`).
    """
    found: list[tuple[str, int, Sequence[asyncpg.Record]]] = []
    for name, number in await target.fetch(sql("recent_numbers"), checkpoint.seq):
        if name in statements.tables and number > FEW_ROWS:
            table = quoted(statements.tables[name].table.target)
            allowed = max(FEW_ROWS, int(share * await target.fetchval(sql("target_rows", target=table))))
            if number > allowed:
                keys = await target.fetch(sql("recent_keys"), checkpoint.seq, name)
                found.append((name, allowed, keys))
    return found


async def _take(target: asyncpg.Connection, *, fence: int, seq: int, cursors: Mapping[str, Cursor]) -> None:
    """Record the state from before run `fence` left its token, in the transaction that takes the fence.

    Older ones are thinned out, so that there are few, whatever their age.
    """
    stored = json.dumps({name: [cursor.xid, cursor.stored()] for name, cursor in cursors.items()})
    await target.execute(sql("checkpoint_take"), fence, seq, stored, KEYS)


async def forget_checkpoints(target: asyncpg.Connection) -> None:
    """Forget all checkpoints, and what is noted, in the caller's transaction."""
    await target.execute(sql("checkpoints_forget"))


async def _rewind(target: asyncpg.Connection, checkpoint: Checkpoint, *, reread: Collection[str]) -> int:
    """Go back to a checkpoint in the caller's transaction; return how many rows are requested by key.

    But for `reread`: nothing may tell the next cycle that their rows were read.
    """
    names = [name for name in checkpoint.cursors if name != DELETES]
    asked = await target.execute(sql("rewind_keys"), checkpoint.seq, names)
    letters = await target.execute(sql("rewind_letters"), checkpoint.below, names)
    for name, cursor in checkpoint.cursors.items():
        if name not in reread:
            await target.execute(sql("rewind_cursor"), name, cursor.xid, cursor.stored())
    await target.execute(sql("rewind_checkpoints"), checkpoint.fence)
    return sum(int(status.rpartition(" ")[2]) for status in (asked, letters))


@dataclass(kw_only=True)
class Checkpoints:
    """What becomes of a graph's checkpoints when a cycle takes the fence."""

    forget: bool = False
    rewind: Checkpoint | None = None
    take: Mapping[str, Cursor] | None = None
    """The cursors of a new one; None: none is due, or none can be vouched for."""
    seq: int = 0
    """What was noted when these cursors were read."""
    kept: bool = False
    """Whether there are any afterwards, so that the cycle notes what it reads."""
    requested: int = 0
    """Rows that a rewind has requested by key."""

    async def apply(self, target: asyncpg.Connection, fence: int, *, reread: Collection[str]) -> None:
        """Do that in the transaction in which the fence was taken. `reread`: tables read from the start."""
        if self.rewind is not None:
            self.requested = await _rewind(target, self.rewind, reread=reread)
        if self.forget:
            await forget_checkpoints(target)
        elif self.take is not None:
            await _take(target, fence=fence, seq=self.seq, cursors=self.take)


class RecentKeys:
    """Notes the keys that the batches of one pass read, for a rewind. Idle while there is no checkpoint.

    It is called in the transaction of a batch, after the read and before anything is applied.
    """

    def __init__(self, statements: SchemaStatements, *, noting: bool) -> None:
        self._noting = noting
        self._noted = 0
        tables = [
            f"('{literal(table.name)}', '{literal(table.source)}', {len(table.key)})"
            for table in statements.schema_map
        ]
        self._tables = commas(tables)

    async def rows(self, target: asyncpg.Connection, table: TableStatements, staged: int) -> str:
        """Return the SQL that notes the staged rows of a table, to be put before another statement."""
        if not staged or not await self._may(target, staged):
            return ""
        return sql("recent_rows", table=literal(table.table.name), key=table.key, stage=table.stage)

    async def deletes(self, target: asyncpg.Connection, stage: str, staged: int) -> None:
        """Note the staged deleted keys."""
        if staged and await self._may(target, staged):
            await target.execute(sql("recent_deletes", tables=self._tables, stage=stage))

    async def asked(self, target: asyncpg.Connection, name: str, row_ids: Collection[object]) -> None:
        """Note requested rows, before the request is taken off the list."""
        if row_ids and await self._may(target, len(row_ids)):
            await target.execute(sql("recent_asked"), name, list(row_ids))

    async def unclear(self, target: asyncpg.Connection) -> None:
        """Give up all checkpoints: what was read has no key to request it by."""
        if self._noting:
            await forget_checkpoints(target)

    async def _may(self, target: asyncpg.Connection, number: int) -> bool:
        """Return whether to note so many keys more; once they are too many, checkpoints are given up."""
        if not self._noting:
            return False
        self._noted += number
        if self._noted > KEYS:
            # Again with each batch: one that is rolled back has given up nothing.
            await forget_checkpoints(target)
            return False
        return True


def of_all(cursors: Mapping[str, Cursor], tables: Collection[str]) -> dict[str, Cursor] | None:
    """Return the cursors of these tables and of deleted keys; None if one is missing."""
    names = [*tables, DELETES]
    return {name: cursors[name] for name in names} if cursors.keys() >= set(names) else None
