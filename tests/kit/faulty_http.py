"""A real HTTP server on loopback that answers what a test tells it to: refusals, garbage, silence."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class _Server(ThreadingHTTPServer):
    # Of more connections at once than this, the kernel drops some, and each tries again a second later.
    request_queue_size = 128


@dataclass(frozen=True, slots=True)
class Answer:
    """One response, or the connection is `cut`.

    It is sent after `silence_seconds`, and once `when` is true, or 10 s later.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    silence_seconds: float = 0
    cut: bool = False
    when: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What the client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class FaultyServer:
    """Answers requests with `answers` in order, the last of them for ever; or else as `respond` says.

    Remembers all `requests`, and the most that were being answered at once.
    """

    def __init__(self, *answers: Answer, respond: Callable[[Request], Answer] | None = None) -> None:
        self.respond = respond or (lambda _: self._next())
        self.answers: deque[Answer] = deque(answers)
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _next(self) -> Answer:
        return self.answers.popleft() if len(self.answers) > 1 else self.answers[0]

    def __enter__(self) -> "FaultyServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _respond(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length", 0))
        request = Request(
            handler.command,
            handler.path,
            {key.lower(): value for key, value in handler.headers.items()},
            handler.rfile.read(length),
        )
        with self._guard:
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            # The lock makes this the order in which the requests arrived.
            answer = self.respond(request)
        self._stopping.wait(answer.silence_seconds)
        if answer.when is not None:
            given_up = time.monotonic() + 10
            while not answer.when() and time.monotonic() < given_up:
                self._stopping.wait(0.02)
        with self._guard:
            self._at_once -= 1
        handler.close_connection = True
        if answer.cut:
            return
        try:
            handler.send_response(answer.status)
            for key, value in {"content-type": "application/json", **answer.headers}.items():
                handler.send_header(key, value)
            handler.send_header("content-length", str(len(answer.body)))
            handler.send_header("connection", "close")
            handler.end_headers()
            handler.wfile.write(answer.body)
        except ConnectionError:
            pass  # the client has given up on a silence

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        respond = self._respond

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                respond(self)

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  # the names that http.server looks for

            do_PATCH = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        return Handler
