"""Rows: a table of the write-db compared with its table of the graph-db."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from syncline.engine.keys import key_of_bytes, presented
from syncline.engine.statements import SchemaStatements
from syncline.engine.verify.buckets import Queries, suspected
from syncline.engine.verify.captured import Captured
from syncline.engine.verify.images import Images, bucket
from syncline.engine.verify.snapshots import Snapshots
from syncline.engine.verify.tally import Tally
from syncline.engine.verify.template import sql
from syncline.engine.verify.unsettled import Refused, Unsettled
from syncline.verification import Verdict

__all__ = ["compare_rows"]


async def compare_rows(
    snapshots: Snapshots, statements: SchemaStatements, images: Images, refused: Refused, tally: Tally
) -> None:
    """Compare all rows of a table, and note what differs."""
    table = images.table
    cursor = snapshots.cursors[table.name]
    captured = Captured(snapshots.schema, statements.tables[table.name], images, cursor, refused.keys)
    waiting = [reference.column for reference in table.optional]
    unsettled = Unsettled(snapshots, statements, captured, table=table, waiting=waiting)
    queries = Queries(
        source_sums=sql(
            "sums",
            bucket=bucket("s.sync_row_id"),
            hash=images.source_hash(),
            rows=captured.passed(2),
            row_id="s.sync_row_id",
        ),
        target_sums=sql(
            "sums",
            bucket=bucket(images.target_id),
            hash=images.target_hash(waiting=False),
            rows=images.target(waiting=False, keys=False),
            row_id=images.target_id,
        ),
        source=sql(
            "listed_source",
            key=captured.key,
            hash=images.source_hash(),
            passed=captured.passed(3),
            coming=captured.coming(3),
            bucket=bucket("s.sync_row_id"),
        ),
        target=sql(
            "listed_target",
            row_id=images.target_id,
            key=images.target_key,
            waits=images.target_waits,
            hash=images.target_hash(waiting=True),
            rows=images.target(waiting=True, keys=True),
            bucket=bucket(images.target_id),
        ),
    )
    async for row_id, found in suspected(snapshots, queries, captured, unsettled, tally):
        verdict = _judge(*found, standing=row_id in refused.standing)
        if verdict is None:
            tally.same()
        else:
            await tally.note(verdict, _key(row_id, found), row_id)


def _judge(
    source: Sequence[asyncpg.Record],
    target: Sequence[asyncpg.Record],
    books: Sequence[asyncpg.Record],
    deleted: Sequence[asyncpg.Record],
    *,
    standing: bool,
) -> Verdict | None:
    """Return what is to be said of a row, None if it is equal; `standing`: refused, and in the write-db."""
    kinds = {record["kind"] for record in books}
    if deleted or "asked" in kinds or any(record["coming"] for record in source):
        return Verdict.PENDING
    if "dead" in kinds:
        # Its removal may be what was refused. Otherwise nothing is left of it that could be refused.
        return Verdict.DEAD if source or target or standing else Verdict.EXTRA
    if not source:
        return Verdict.EXTRA
    if "parked" in kinds:
        if target:
            return Verdict.EXTRA
        return Verdict.MISSING if any(record["stuck"] for record in books) else Verdict.PARKED
    if not target:
        return Verdict.MISSING
    if source[0]["hash"] != target[0]["hash"]:
        return Verdict.STALE
    return Verdict.PARKED if target[0]["waits"] else None


def _key(row_id: UUID, found: Sequence[Sequence[asyncpg.Record]]) -> Sequence[str]:
    """Return the key of a row from whoever knows it; what the books say of an unknown row goes by its id."""
    source, target, books, deleted = found
    for record in (*source, *deleted):
        return presented(key_of_bytes(record["key"]))
    keys = (record["key"] for record in (*target, *books))
    key: Sequence[str] = next((key for key in keys if key is not None), [str(row_id)])
    return key
