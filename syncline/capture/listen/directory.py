"""Directory: which graphs use a schema of a write-db; refreshed now and then from the control plane."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from syncline.control.graphs import Graph, GraphRecords
from syncline.errors import SynclineError
from syncline.logs import get_log
from syncline.messages.base import GraphStatus

__all__ = ["Directory", "Entry"]

_AFRESH: Final = 2.0
"""Seconds before an unknown schema is looked up again."""

Entry = tuple[Graph, ...]
"""The graphs of one schema that notifications may run: usually one, none if all are opted out."""


class Directory:
    """Graphs by write store and schema, as of the last successful read."""

    def __init__(self, read_records: Callable[[], Awaitable[GraphRecords]]) -> None:
        self._read_records = read_records
        self._entries: dict[str | None, dict[str, Entry]] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    @property
    def stores(self) -> frozenset[str | None]:
        """The write stores with a graph that notifications may run."""
        return frozenset(key for key, entries in self._entries.items() if any(entries.values()))

    def entries(self, store: str | None) -> Mapping[str, Entry]:
        """Return schema -> graphs of a write store. Each read creates a new mapping."""
        return self._entries.get(store, {})

    async def find(self, store: str | None, schema: str) -> Entry:
        """Return the schema's graphs; an unknown schema triggers another read."""
        if schema not in self.entries(store):
            await self.read(older_than=_AFRESH)
        return self.entries(store).get(schema, ())

    async def read(self, *, older_than: float) -> bool:
        """Read the records if the last read is older than this; return whether they were read.

        On failure the previous records stay.
        """
        async with self._reading:
            if time.monotonic() - self._read_at < older_than:
                return False
            try:
                records = await self._read_records()
            except SynclineError as error:
                get_log().debug("graphs could not be read", error=str(error))
                return False
            self._read_at = time.monotonic()
            entries: dict[str | None, dict[str, Entry]] = {}
            for graph in records.valid:
                schemas = entries.setdefault(graph.write_store, {})
                wanted = (graph,) if graph.status is GraphStatus.ACTIVE and graph.schedule.notify else ()
                schemas[graph.schema_name] = schemas.get(graph.schema_name, ()) + wanted
            self._entries = entries
            return True
