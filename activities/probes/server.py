"""The HTTP server of the probes: GET and HEAD of a few paths, one request a connection, all bounded."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final

__all__ = ["Answer", "serve"]

Answer = Callable[[], tuple[bool, str]]
"""Returns whether to answer 200, else 503; and the body, JSON."""

_SECONDS: Final = 5.0
"""For a request to arrive, and for its answer to be taken."""
_HEAD: Final = 8192
_AT_ONCE: Final = 32


async def serve(host: str, port: int, paths: Mapping[str, Answer]) -> asyncio.Server:
    """Start to serve, in the running event loop; raise OSError if the address cannot be used."""
    open_now = 0

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        if open_now >= _AT_ONCE:
            writer.transport.abort()
            return
        open_now += 1
        try:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_answered(head, paths))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        finally:
            open_now -= 1
            writer.transport.abort()

    return await asyncio.start_server(one, host, port, limit=_HEAD)


def _answered(head: bytes, paths: Mapping[str, Answer]) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target = rest.partition(" ")[0].partition("?")[0]
    known = paths.get(target)
    if known is None:
        status, body = HTTPStatus.NOT_FOUND, '{"problem": "the paths are ' + ", ".join(paths) + '"}'
    elif method not in ("GET", "HEAD"):
        status, body = HTTPStatus.METHOD_NOT_ALLOWED, '{"problem": "only GET and HEAD"}'
    else:
        good, body = known()
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    content = body.encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    answered = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return answered if method == "HEAD" else answered + content
