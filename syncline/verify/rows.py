"""Rows: compares a write-db table with its graph-db table."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

import asyncpg

from syncline.engine.keys import key_of_bytes, presented
from syncline.engine.render.statements import SchemaStatements
from syncline.messages.verification import Verdict
from syncline.sql import statements_of
from syncline.verify.checksums import BUCKETS, RowChecksums, bucket
from syncline.verify.in_flight import Captured, InFlight, Refused
from syncline.verify.snapshots import Snapshots
from syncline.verify.tally import Tally

__all__ = ["Queries", "compare_rows", "pairs", "side_by_side", "suspected"]

_sql = statements_of("syncline.verify")

LeftT = TypeVar("LeftT")
RightT = TypeVar("RightT")


async def pairs(
    lefts: AsyncIterator[LeftT],
    rights: AsyncIterator[RightT],
    *,
    left_id: Callable[[LeftT], UUID],
    right_id: Callable[[RightT], UUID],
) -> AsyncIterator[tuple[LeftT | None, RightT | None]]:
    """Yield pairs with equal ids; a missing partner is None. Both streams ascend by id, each id once."""
    left, right = await anext(lefts, None), await anext(rights, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left_id(left) < right_id(right)):
            yield left, None
            left = await anext(lefts, None)
        elif left is None or right_id(right) < left_id(left):
            yield None, right
            right = await anext(rights, None)
        else:
            yield left, right
            left, right = await anext(lefts, None), await anext(rights, None)


async def side_by_side(
    *streams: AsyncIterator[asyncpg.Record],
) -> AsyncIterator[tuple[UUID, list[list[asyncpg.Record]]]]:
    """Yield each `row_id` once, in order, with its records from each stream."""
    heads = [await anext(stream, None) for stream in streams]
    while True:
        ids = [head["row_id"] for head in heads if head is not None]
        if not ids:
            return
        lowest = min(ids)
        found: list[list[asyncpg.Record]] = []
        for place, stream in enumerate(streams):
            records = []
            head = heads[place]
            while head is not None and head["row_id"] == lowest:
                records.append(head)
                head = await anext(stream, None)
            heads[place] = head
            found.append(records)
        yield lowest, found


@dataclass(frozen=True, kw_only=True)
class Queries:
    """The queries for both sides: the sums of every bucket, then the rows of buckets that differ."""

    source_sums: str
    target_sums: str
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class _Suspects:
    """What has to be compared row by row."""

    ids: Sequence[UUID]
    buckets: bytes
    """One bit per bucket."""
    equal: int
    """Number of rows outside these buckets, which are equal."""

    @property
    def any(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.ids) or any(self.buckets)


_EVERYTHING: Final = _Suspects(ids=(), buckets=b"\xff" * (BUCKETS // 8), equal=0)


async def suspected(
    snapshots: Snapshots, queries: Queries, captured: Captured, unsettled: InFlight, tally: Tally
) -> AsyncIterator[tuple[UUID, list[list[asyncpg.Record]]]]:
    """Yield what has to be compared row by row; count what the sums show to be equal.

    Yields an id with its records from source, target, bookkeeping tables and deleted keys.
    """
    few = await unsettled.few()
    suspects = _EVERYTHING if few is None else await _narrowed(snapshots, queries, captured, unsettled=few)
    tally.same(suspects.equal)
    if not suspects.any:
        return
    source = snapshots.write.stream(queries.source, suspects.ids, suspects.buckets, *captured.parameters)
    target = snapshots.target.stream(queries.target, suspects.ids, suspects.buckets)
    entries = snapshots.target.stream(unsettled.entries)
    deleted = snapshots.write.stream(unsettled.deleted, *unsettled.deleted_parameters)
    async for found in side_by_side(source, target, entries, deleted):
        yield found


async def _narrowed(
    snapshots: Snapshots, queries: Queries, captured: Captured, *, unsettled: Sequence[UUID]
) -> _Suspects:
    """Compare the sums, computed on both sides at once; `unsettled` rows are suspects anyway."""
    sums = [
        asyncio.ensure_future(snapshots.write.fetch(queries.source_sums, unsettled, *captured.parameters)),
        asyncio.ensure_future(snapshots.target.fetch(queries.target_sums, unsettled)),
    ]
    try:
        expected, actual = await asyncio.gather(*sums)
    finally:
        # If one side fails, the other must stop before its connection is released.
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
    for number in differing:
        bits[number // 8] |= 1 << number % 8
    return _Suspects(ids=unsettled, buckets=bytes(bits), equal=equal)


async def compare_rows(
    snapshots: Snapshots, statements: SchemaStatements, images: RowChecksums, refused: Refused, tally: Tally
) -> None:
    """Compare all rows of a table; note differences in `tally`."""
    table = images.table
    cursor, load = snapshots.cursors[table.name], snapshots.loads.get(table.name)
    captured = Captured(snapshots.schema, statements.tables[table.name], images, cursor, load, refused.keys)
    waiting = [reference.column for reference in table.optional]
    unsettled = InFlight(snapshots, statements, captured, table=table, waiting=waiting)
    queries = Queries(
        source_sums=_sql(
            "sums",
            bucket=bucket("s.sync_row_id"),
            hash=images.source_hash(),
            rows=images.with_values(captured.passed(2)),
            row_id="s.sync_row_id",
        ),
        target_sums=_sql(
            "sums",
            bucket=bucket(images.target_id),
            hash=images.target_hash(waiting=False),
            rows=images.target(waiting=False, keys=False),
            row_id=images.target_id,
        ),
        source=_sql(
            "listed_source",
            key=captured.key,
            hash=images.source_hash(),
            passed=images.with_values(captured.passed(3)),
            coming=captured.coming(3),
            bucket=bucket("s.sync_row_id"),
        ),
        target=_sql(
            "listed_target",
            row_id=images.target_id,
            key=images.target_key,
            waits=images.target_waits,
            hash=images.target_hash(waiting=True),
            rows=images.target(waiting=True, keys=True),
            bucket=bucket(images.target_id),
        ),
    )
    tally.filling = table.name in snapshots.filling
    async for row_id, found in suspected(snapshots, queries, captured, unsettled, tally):
        verdict = _judge(*found, still_there=row_id in refused.still_there)
        if verdict is Verdict.STALE and tally.filling:
            # Every row is read again, and written where it differs.
            verdict = Verdict.PENDING
        if verdict is None:
            tally.same()
        else:
            await tally.note(verdict, _key(row_id, found), row_id)


def _judge(
    source: Sequence[asyncpg.Record],
    target: Sequence[asyncpg.Record],
    entries: Sequence[asyncpg.Record],
    deleted: Sequence[asyncpg.Record],
    *,
    still_there: bool,
) -> Verdict | None:
    """Return a row's verdict, None if it is equal; `still_there`: rejected, and in the write-db."""
    kinds = {record["kind"] for record in entries}
    if deleted or "asked" in kinds or any(record["coming"] for record in source):
        return Verdict.PENDING
    if "dead" in kinds:
        # Its removal may have been rejected. Otherwise nothing is left that could be rejected.
        return Verdict.DEAD if source or target or still_there else Verdict.EXTRA
    if not source:
        return Verdict.EXTRA
    if "parked" in kinds:
        if target:
            return Verdict.EXTRA
        return Verdict.MISSING if any(record["stuck"] for record in entries) else Verdict.PARKED
    if not target:
        return Verdict.MISSING
    if source[0]["hash"] != target[0]["hash"]:
        return Verdict.STALE
    return Verdict.PARKED if target[0]["waits"] else None


def _key(row_id: UUID, found: Sequence[Sequence[asyncpg.Record]]) -> Sequence[str]:
    """Return the row's key from any record; an unknown row's bookkeeping entry is named by id."""
    source, target, entries, deleted = found
    for record in (*source, *deleted):
        return presented(key_of_bytes(record["key"]))
    keys = (record["key"] for record in (*target, *entries))
    key: Sequence[str] = next((key for key in keys if key is not None), [str(row_id)])
    return key
