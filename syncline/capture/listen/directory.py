"""Directory: which graphs a schema of a write-db is of, read now and then from the control plane."""

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
"""Seconds for which an unknown schema stays unknown."""

Entry = tuple[Graph, ...]
"""The graphs of one schema whose changes are to start runs: usually one, none if no one wants it."""


class Directory:
    """The graphs by write store and schema, as of the last reading that succeeded."""

    def __init__(self, read_records: Callable[[], Awaitable[GraphRecords]]) -> None:
        self._read_records = read_records
        self._entries: dict[str | None, dict[str, Entry]] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    @property
    def stores(self) -> frozenset[str | None]:
        """The write stores that have a graph whose changes are to start runs."""
        return frozenset(key for key, entries in self._entries.items() if any(entries.values()))

    def entries(self, store: str | None) -> Mapping[str, Entry]:
        """Return the schemas of a write store. Another reading brings another mapping."""
        return self._entries.get(store, {})

    async def find(self, store: str | None, schema: str) -> Entry:
        """Return the schema's graphs, after another reading if it is unknown."""
        if schema not in self.entries(store):
            await self.read(older_than=_AFRESH)
        return self.entries(store).get(schema, ())

    async def read(self, *, older_than: float) -> bool:
        """Read the records if the last reading is older than this, and return whether they were read.

        If that fails, what was read before is kept.
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
