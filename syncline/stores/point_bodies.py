"""Bodies of requests that write points to a Qdrant server: JSON, made from matrices without a Python number.

qdrant-client makes a float of each component, checks each, and writes it with the 17 digits of a double: most
of the CPU of a first load. The shortest decimals of float32 say the same number in half the bytes.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import orjson

from syncline.embeddings.service import Vectors
from syncline.stores.vectors import PointPayload, payload_json

__all__ = ["PointBodies"]

_AT_ONCE: Final = 256 * 1024
"""Bytes of vectors that are written as text before others of the event loop have a turn: some 3 ms."""
_MARKS: Final = 8
"""Quotes, commas and brackets of a point."""


class PointBodies:
    """Points and their vectors as JSON; a body holds any of them."""

    def __init__(self) -> None:
        self._ids: list[bytes] = []
        self._vectors: list[bytes] = []
        self._payloads: list[bytes] = []
        self.sizes: list[int] = []
        """Bytes that each point adds to a body."""

    @classmethod
    async def of(cls, points: Sequence[PointPayload], matrix: Vectors) -> "PointBodies":
        """Return the bodies of points with finite vectors, row i for point i."""
        bodies = cls()
        step = max(1, _AT_ONCE // max(1, matrix.itemsize * matrix.shape[1]))
        for start in range(0, len(points), step):
            if start:
                await asyncio.sleep(0)
            bodies._add(points[start : start + step], matrix[start : start + step])
        return bodies

    def _add(self, points: Sequence[PointPayload], matrix: Vectors) -> None:
        ids = [f'"{point.id}"'.encode() for point in points]
        vectors = [orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY) for vector in matrix]
        payloads = [payload_json(point.payload) for point in points]
        self.sizes += [sum(map(len, parts)) + _MARKS for parts in zip(ids, vectors, payloads, strict=True)]
        self._ids += ids
        self._vectors += vectors
        self._payloads += payloads

    def body(self, part: Sequence[int]) -> bytes:
        """Return the body of a request that upserts these points."""
        columns = (b",".join([column[item] for item in part]) for column in self._columns)
        return b'{"batch":{"ids":[%b],"vectors":[%b],"payloads":[%b]}}' % tuple(columns)

    @property
    def _columns(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        return self._ids, self._vectors, self._payloads
