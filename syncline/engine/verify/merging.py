"""Merging: streams that are in the order of their row ids, side by side."""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar
from uuid import UUID

import asyncpg

__all__ = ["pairs", "side_by_side"]

LeftT = TypeVar("LeftT")
RightT = TypeVar("RightT")


async def pairs(
    lefts: AsyncIterator[LeftT],
    rights: AsyncIterator[RightT],
    *,
    left_id: Callable[[LeftT], UUID],
    right_id: Callable[[RightT], UUID],
) -> AsyncIterator[tuple[LeftT | None, RightT | None]]:
    """Yield each with its other, if it has one; both come in ascending order of ids, and no id twice."""
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
