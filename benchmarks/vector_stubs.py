"""Stubs that cost little CPU: an embedding service, and a Qdrant server that takes everything."""

import asyncio
import base64
import json
import sys
import time
from collections import deque
from itertools import count

import numpy as np

SECONDS_PER_HUNDRED = 0.05


class Stubs:
    """Both services on one port, and what they counted."""

    def __init__(self, *, dimensions: int, slow_every: int, quota: int, window_seconds: float) -> None:
        vector = np.linspace(-1, 1, dimensions, dtype=np.float32)
        self._floats = json.dumps([float(number) for number in vector])
        self._base64 = json.dumps(base64.b64encode(vector.tobytes()).decode())
        self._dimensions, self._slow_every = dimensions, slow_every
        self._quota, self._window = quota, window_seconds
        self._asked = count(1)
        self._lately: deque[float] = deque()
        self._collections: set[str] = set()
        self._counts = {"requests": 0, "texts": 0, "points": 0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, answer, extra = await self._answer(method, path.split("?")[0], body)
                writer.write(
                    f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n{extra}"
                    f"content-length: {len(answer)}\r\n\r\n".encode()
                )
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes, str]:
        if path == "/embeddings":
            return await self._embedded(body)
        if path == "/counts":
            return 200, json.dumps(self._counts).encode(), ""
        result: object = {"operation_id": 1, "status": "completed"}
        _, _, name, *rest = (*path.split("/"), "", "")
        if rest[0] == "exists":
            result = {"exists": name in self._collections}
        elif method == "PUT" and rest[0] == "":
            self._collections.add(name)
            result = True
        elif method == "PUT" and rest[0] == "points":
            self._counts["points"] += body.count(b'"sync_hash"')
        elif method == "GET":
            result = self._described()
        elif rest[1] == "scroll":
            point = {"id": "00000000-0000-0000-0000-000000000001", "payload": {}}
            result = {"points": [point] if self._counts["points"] else [], "next_page_offset": None}
        elif rest[1] == "count":
            result = {"count": self._counts["points"]}
        return 200, json.dumps({"result": result, "status": "ok", "time": 0.001}).encode(), ""

    async def _embedded(self, body: bytes) -> tuple[int, bytes, str]:
        now = time.monotonic()
        while self._lately and now - self._lately[0] > self._window:
            self._lately.popleft()
        if self._quota and len(self._lately) >= self._quota:
            wait = self._window - (now - self._lately[0])
            return 429, b'{"error": {"message": "rate limit"}}', f"retry-after: {int(wait) + 1}\r\n"
        self._lately.append(now)
        asked = json.loads(body)
        texts = len(asked["input"])
        self._counts["requests"] += 1
        self._counts["texts"] += texts
        slow = 10 if self._slow_every and next(self._asked) % self._slow_every == 0 else 1
        await asyncio.sleep(texts / 100 * SECONDS_PER_HUNDRED * slow)
        vector = self._base64 if asked.get("encoding_format") == "base64" else self._floats
        items = ", ".join(f'{{"index": {row}, "embedding": {vector}}}' for row in range(texts))
        return 200, f'{{"data": [{items}], "model": "stub"}}'.encode(), ""

    def _described(self) -> object:
        optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": {
                "params": {"vectors": {"size": self._dimensions, "distance": "Cosine"}},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {**optimizer, "flush_interval_sec": 5},
            },
            "payload_schema": {},
        }


async def main() -> None:
    """Serve on a free port, which is printed, until terminated."""
    case = json.loads(sys.argv[1])
    stubs = Stubs(**{name: case[name] for name in ("dimensions", "slow_every", "quota", "window_seconds")})
    server = await asyncio.start_server(stubs.serve, "127.0.0.1", 0, limit=1 << 26)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
