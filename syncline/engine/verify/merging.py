"""Merging: streams that are in the order of their row ids, side by side."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg

__all__ = ["side_by_side"]


async def side_by_side(
    *streams: AsyncIterator[asyncpg.Record],
) -> AsyncIterator[tuple[UUID, list[list[asyncpg.Record]]]]:
    """Yield each `row_id` once, in order, with the records that each stream has of it."""
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
