"""Buckets: the sums of both sides, and which of them differ."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from syncline.engine.verify.images import BUCKETS
from syncline.engine.verify.snapshots import Side

__all__ = ["Suspects", "everything", "narrow"]


@dataclass(frozen=True, kw_only=True)
class Suspects:
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


def everything() -> Suspects:
    """Return the suspicion of all."""
    return Suspects(ids=(), buckets=b"\xff" * (BUCKETS // 8), equal=0)


async def narrow(
    source: Side,
    source_sums: str,
    source_parameters: Sequence[object],
    target: Side,
    target_sums: str,
    *,
    unsettled: Sequence[UUID],
) -> Suspects:
    """Compare the sums of both sides, which they compute at once; `unsettled` rows are suspects anyway."""
    sums = [
        asyncio.ensure_future(source.fetch(source_sums, unsettled, *source_parameters)),
        asyncio.ensure_future(target.fetch(target_sums, unsettled)),
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
    return Suspects(ids=unsettled, buckets=bytes(bits), equal=equal)
