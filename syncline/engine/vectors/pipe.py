"""The vector pipe of one collection: entries are read, their texts embedded, and what comes back is written.

Three parts that never wait for a whole batch: the reader keeps enough texts at hand; requests are sent while
there are lanes and room for their vectors; the writer takes whatever has come back. If the embedding service
fails, what came back before is written; if the vector store fails, no further text is sent, and vectors that
were paid for are kept. Until the store has taken a vector, one request is sent at a time.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from syncline.concurrency import all_of
from syncline.embeddings.pace import Pace
from syncline.embeddings.service import EmbeddingService
from syncline.engine.vectors.asking import AskedText, Stopped, TextRequests
from syncline.engine.vectors.outbox import Entry
from syncline.engine.vectors.paid_vectors import PaidVectors, Vector
from syncline.errors import EmbeddingError, VectorStoreError

__all__ = ["Arrived", "VectorPipe"]

_VECTOR_BYTES: Final = 32 * 1024 * 1024
"""Vectors that are being computed or wait to be written."""
_WRITE_ROWS: Final = 2000
_TEXT_BYTES: Final = 16 * 1024 * 1024
"""Texts and payloads after which nothing more is read; one reading may go beyond it."""
_UNSETTLED: Final = 2
"""Requests of texts per lane that are under way, or paid and not settled: what a killed worker pays again."""
_AHEAD: Final = 4
"""Texts at hand, as a multiple of those that all lanes take."""


@dataclass(kw_only=True)
class Arrived:
    """Entries that can be written now."""

    gone: list[Entry] = field(default_factory=list)
    relabelled: list[Entry] = field(default_factory=list)
    changed: list[Entry] = field(default_factory=list)
    vectors: list[Vector] = field(default_factory=list)
    """One for each of `changed`."""
    refused: list[tuple[Entry, EmbeddingError]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.gone) + len(self.relabelled) + len(self.changed) + len(self.refused)

    def take(self, most: int) -> "Arrived":
        """Remove and return the first of each kind."""
        taken = Arrived(
            gone=self.gone[:most],
            relabelled=self.relabelled[:most],
            changed=self.changed[:most],
            vectors=self.vectors[:most],
            refused=self.refused[:most],
        )
        del self.gone[:most], self.relabelled[:most], self.changed[:most]
        del self.vectors[:most], self.refused[:most]
        return taken

    def entries(self) -> Iterator[Entry]:
        """Yield every entry."""
        yield from (*self.gone, *self.relabelled, *self.changed)
        for entry, _ in self.refused:
            yield entry


class VectorPipe:
    """Moves the entries of one collection; used once."""

    def __init__(
        self,
        service: EmbeddingService,
        pace: Pace,
        paid: PaidVectors,
        *,
        read: Callable[[], Awaitable[Sequence[Entry]]],
        write: Callable[[Arrived], Awaitable[bool]],
        require: Callable[[], Awaitable[None]],
        out_of_time: Callable[[], bool],
        came_back: Callable[[int], None],
        share: int = 1,
    ) -> None:
        """Store the callbacks. `share`: pipes that share what is held in memory, and `paid`.

        `read` returns the next entries, none at the end. `write` returns whether the store took a vector.
        `require` raises CycleFenced; it and `out_of_time` are asked before each request.
        """
        self._service, self._pace, self._paid = service, pace, paid
        self._read, self._write, self._require = read, write, require
        self._out_of_time, self._came_back = out_of_time, came_back
        self._requests = TextRequests(
            service, pace, allowed=self._allowed, deliver=self._delivered, refuse=self._refused
        )
        self._room = max(1, _VECTOR_BYTES // (4 * service.dimensions * share))
        self._most_text_bytes = _TEXT_BYTES // share
        self._most_written = max(1, min(_WRITE_ROWS, self._room // 4))
        self._bytes_inside = 0
        self._shared = share > 1
        self._to_ask: deque[AskedText] = deque()
        self._elsewhere: list[AskedText] = []
        """Texts that another collection's request has."""
        self._asked: dict[bytes, AskedText] = {}
        """Texts to ask, or that are being asked: an equal one joins them."""
        self._arrived = Arrived()
        self._inside: dict[UUID, int] = {}
        """Points in the pipe, and their bytes. A newer entry waits: two writes could overtake each other."""
        self._in_flight: dict[asyncio.Task[None], int] = {}
        self._being_written = 0
        self._at_end = self._ended = self._writing = False
        self._took = self._in_vain = self._sent_any = self._began = False
        self._failure: EmbeddingError | VectorStoreError | None = None
        self._fault: BaseException | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Move entries until none is left or the time is spent.

        Raise EmbeddingError or VectorStoreError if the service or the store refuses everything.
        """
        await all_of(self._reader(), self._sender(), self._writer())
        if self._failure is not None:
            raise self._failure

    @property
    def _stopped(self) -> bool:
        # However little time there is, each cycle gets something done.
        return self._failure is not None or self._ended or (self._began and self._out_of_time())

    async def _reader(self) -> None:
        try:
            while not self._stopped:
                if (
                    len(self._to_ask) >= _AHEAD * self._pace.lanes * self._pace.rows
                    or len(self._arrived) >= 2 * _WRITE_ROWS
                    or self._bytes_inside >= self._most_text_bytes
                ):
                    await self._change()
                    continue
                entries = await self._read()
                if not entries:
                    break
                while any(entry["point_id"] in self._inside for entry in entries) and not self._stopped:
                    await self._change()
                if not self._stopped:
                    self._take(entries)
        finally:
            self._at_end = True
            self._changed.set()

    def _take(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            text, text_hash = entry["text"], entry["text_hash"]
            size = self._inside[entry["point_id"]] = len(text or "") + len(entry["payload"] or "")
            self._bytes_inside += size
            if not entry["present"]:
                self._arrived.gone.append(entry)
            elif entry["unchanged"]:
                self._arrived.relabelled.append(entry)
            elif (vector := self._paid.get(text_hash)) is not None:
                self._arrived.changed.append(entry)
                self._arrived.vectors.append(vector)
            elif (asked := self._asked.get(text_hash)) is not None:
                asked.entries.append(entry)
            else:
                asked = self._asked[text_hash] = AskedText(text, text_hash, [entry])
                self._to_ask.append(asked)
        self._changed.set()

    async def _sender(self) -> None:
        try:
            while not self._stopped and (
                self._to_ask or self._elsewhere or self._in_flight or not self._at_end
            ):
                self._raise_fault()
                if self._in_vain and self._sent_any and not self._took:
                    # The store is not known to take anything: whoever asks for more pays for nothing.
                    break
                if (texts := self._next_texts()) is None:
                    await self._change()
                    continue
                full = bool(self._to_ask) or len(texts) >= self._pace.rows
                task = asyncio.create_task(self._send(texts, full=full))
                self._in_flight[task], self._sent_any = len(texts), True
                task.add_done_callback(self._came_home)
            while self._in_flight:
                await asyncio.wait(self._in_flight)
            self._raise_fault()
        except BaseException:  # none goes on, with connections and texts, when the cycle has ended
            for task in self._in_flight:
                task.cancel()
            await asyncio.gather(*self._in_flight, return_exceptions=True)
            raise
        finally:
            self._ended = True
            self._changed.set()

    def _next_texts(self) -> list[AskedText] | None:
        """Return the texts of the next request; None if it has to wait."""
        lanes = self._pace.lanes if self._took else 0 if self._writing or self._arrived.changed else 1
        waiting = sum(self._in_flight.values()) + len(self._arrived.changed)
        unsettled = waiting + self._being_written
        if unsettled and unsettled > (_UNSETTLED * self._pace.lanes - 1) * self._pace.rows:
            return None
        rows = min(self._pace.rows, self._room - waiting)
        if not self._to_ask or len(self._in_flight) >= lanes or rows < 1:
            return None
        if self._in_flight and rows < self._pace.rows:
            return None
        if self._in_flight and not self._at_end and len(self._to_ask) < rows:
            return None  # more is being read
        texts: list[AskedText] = []
        size = 0
        while self._to_ask and len(texts) < rows:
            size += len(self._to_ask[0].text)
            if texts and size > self._pace.most_bytes:
                break
            asked = self._to_ask.popleft()
            if self._shared and self._is_elsewhere(asked):
                size -= len(asked.text)
            else:
                texts.append(asked)
        return texts or None

    def _is_elsewhere(self, asked: AskedText) -> bool:
        """Return whether another collection has asked for a text or is asking; else claim it."""
        if (vector := self._paid.get(asked.text_hash)) is not None:
            self._arrive(asked, vector)
            self._changed.set()
        elif not self._paid.claim(asked.text_hash):
            self._elsewhere.append(asked)
            self._paid.wait(self._look_again)
        else:
            return False
        return True

    def _look_again(self) -> None:
        self._to_ask.extendleft(reversed(self._elsewhere))
        self._elsewhere.clear()
        self._changed.set()

    async def _send(self, texts: Sequence[AskedText], *, full: bool) -> None:
        try:
            await self._requests.send(texts, full=full)
        except Stopped:
            pass
        except EmbeddingError as failure:
            self._failure = self._failure or failure
        finally:
            if self._shared:
                self._paid.release(asked.text_hash for asked in texts)

    async def _allowed(self) -> None:
        if self._stopped:
            raise Stopped
        await self._require()
        if self._stopped:
            raise Stopped
        self._began = True

    def _came_home(self, task: "asyncio.Task[None]") -> None:
        del self._in_flight[task]
        if not task.cancelled():
            self._fault = self._fault or task.exception()
        self._changed.set()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _delivered(self, texts: Sequence[AskedText], vectors: Sequence[Vector]) -> None:
        for asked, vector in zip(texts, vectors, strict=True):
            self._paid.add(asked.text_hash, vector)
            self._arrive(asked, vector)
        self._came_back(len(texts))
        self._changed.set()

    def _arrive(self, asked: AskedText, vector: Vector) -> None:
        self._asked.pop(asked.text_hash, None)
        self._arrived.changed += asked.entries
        self._arrived.vectors += [vector] * len(asked.entries)

    def _refused(self, asked: AskedText, error: EmbeddingError) -> None:
        self._asked.pop(asked.text_hash, None)
        self._arrived.refused += [(entry, error) for entry in asked.entries]
        self._changed.set()

    async def _writer(self) -> None:
        while not isinstance(self._failure, VectorStoreError):
            if len(self._arrived) == 0:
                if self._ended and self._at_end:
                    return
                await self._change()
                continue
            batch, self._writing = self._arrived.take(self._most_written), True
            self._being_written = len(batch.changed)
            try:
                took = await self._write(batch)
                self._began = True
                self._took |= took
                self._in_vain |= bool(batch.changed) and not took
            except VectorStoreError as failure:
                self._failure = failure
            finally:
                self._writing, self._being_written = False, 0
                for entry in batch.entries():
                    self._bytes_inside -= self._inside.pop(entry["point_id"], 0)
                self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
