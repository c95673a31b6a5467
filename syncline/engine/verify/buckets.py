"""Buckets: the sums of both sides, which of them differ, and what has to be looked at one by one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from syncline.engine.verify.captured import Captured
from syncline.engine.verify.images import BUCKETS
from syncline.engine.verify.merging import side_by_side
from syncline.engine.verify.snapshots import Snapshots
from syncline.engine.verify.tally import Tally
from syncline.engine.verify.unsettled import Unsettled

__all__ = ["Queries", "suspected"]


@dataclass(frozen=True, kw_only=True)
class Queries:
    """What is asked of both sides: the sums of every bucket, then what is in those that differ."""

    source_sums: str
    target_sums: str
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class _Suspects:
    """What has to be looked at one by one."""

    ids: Sequence[UUID]
    buckets: bytes
    """One bit for each bucket."""
    equal: int
    """How many rows are in no such bucket, and equal."""

    @property
    def any(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self.ids) or any(self.buckets)


_EVERYTHING: Final = _Suspects(ids=(), buckets=b"\xff" * (BUCKETS // 8), equal=0)


async def suspected(
    snapshots: Snapshots, queries: Queries, captured: Captured, unsettled: Unsettled, tally: Tally
) -> AsyncIterator[tuple[UUID, list[list[asyncpg.Record]]]]:
    """Yield what has to be looked at one by one, and count what is equal by the sums.

    An id with its records of the source, of the target, of the books, and of the deleted keys.
    """
    few = await unsettled.few()
    suspects = _EVERYTHING if few is None else await _narrowed(snapshots, queries, captured, unsettled=few)
    tally.same(suspects.equal)
    if not suspects.any:
        return
    source = snapshots.write.stream(queries.source, suspects.ids, suspects.buckets, *captured.parameters)
    target = snapshots.target.stream(queries.target, suspects.ids, suspects.buckets)
    books = snapshots.target.stream(unsettled.books)
    deleted = snapshots.write.stream(unsettled.deleted, *unsettled.deleted_parameters)
    async for found in side_by_side(source, target, books, deleted):
        yield found


async def _narrowed(
    snapshots: Snapshots, queries: Queries, captured: Captured, *, unsettled: Sequence[UUID]
) -> _Suspects:
    """Compare the sums of both sides, which they compute at once; `unsettled` rows are suspects anyway."""
    sums = [
        asyncio.ensure_future(snapshots.write.fetch(queries.source_sums, unsettled, *captured.parameters)),
        asyncio.ensure_future(snapshots.target.fetch(queries.target_sums, unsettled)),
    ]
    try:
        expected, actual = await asyncio.gather(*sums)
    finally:
        # If one side fails, the other must have stopped before its connection is let go.
        for side in sums:
            side.cancel()
        await asyncio.gather(*sums, return_exceptions=True)
    by_bucket = {row["bucket"]: (row["rows"], row["hashes"]) for row in expected}
    equal = 0
    differing = set(by_bucket)
    for row in actual:
        if by_bucket.get(row["bucket"]) == (row["rows"], row["hashes"]):
            differing.discard(row["bucket"])
            equal += row["rows"]
        else:
            differing.add(row["bucket"])
    bits = bytearray(BUCKETS // 8)
    for bucket in differing:
        bits[bucket // 8] |= 1 << bucket % 8
    return _Suspects(ids=unsettled, buckets=bytes(bits), equal=equal)
