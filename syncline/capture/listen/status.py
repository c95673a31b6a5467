"""Listener status: whether a change of a graph would be notified now, so that its Schedule may be slow."""

import time
from typing import Final

from syncline.capture.install.steps import LISTENER, STATE, qualified
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.errors import StoreError
from syncline.sql import statements_of
from syncline.stores.postgres import PostgresStore
from syncline.stores.tenants import reading

__all__ = ["ListenerStatus", "listened_to", "listener_name"]

_REMEMBERED: Final = 10.0

_sql = statements_of("syncline.capture.listen")


def listener_name(namespace: str, services: Services, store: PostgresStore) -> str:
    """Return the name by which all workers of a deployment identify a store's listen connection."""
    return f"{namespace}/{services.settings.task_queue}/{store.name}"


async def listened_to(store: PostgresStore, name: str) -> bool:
    """Return whether a worker listens to the store, whose tables notify."""
    async with store.driver() as connection, reading(connection, [qualified(*LISTENER)]):
        return bool(await connection.fetchval(_sql("alive"), name))


class ListenerStatus:
    """Answers mostly from memory: checks a store's listener every few seconds, its triggers once.

    Whether a graph's writers are set to notify is checked each time.
    """

    def __init__(self, services: Services, *, namespace: str) -> None:
        self._services = services
        self._namespace = namespace
        self._notifying: set[tuple[str, str]] = set()
        self._heard: dict[str, tuple[float, bool]] = {}

    async def reason_unavailable(self, graph: Graph) -> str | None:
        """Return why a change of the graph would not be notified, in a sentence; None if it would."""
        try:
            store = self._services.store("write", graph.write_store)
            if not await self._notifies(store, graph.source_schema):
                return "not all of its tables notify; run `syncline migrate` or `syncline graph adopt`"
            if not await self._listened_to(store):
                return f"no worker listens to write-db '{store.name}'"
            if not await self._is_notified(store, graph.source_schema):
                return "its writers are not set to notify yet; if that lasts, see the listening worker's log"
        except StoreError as error:
            return str(error)
        return None

    async def _notifies(self, store: PostgresStore, schema: str) -> bool:
        if (store.name, schema) not in self._notifying:
            async with store.driver() as connection, reading(connection):
                if not await connection.fetchval(_sql("notifies"), schema):
                    return False
            self._notifying.add((store.name, schema))
        return True

    async def _is_notified(self, store: PostgresStore, schema: str) -> bool:
        # Not cached: a graph that was paused and resumed may have been reset.
        state = qualified(schema, STATE)
        async with store.driver() as connection, reading(connection, [state]):
            return bool(await connection.fetchval(_sql("wanted", state=state)))

    async def _listened_to(self, store: PostgresStore) -> bool:
        asked_at, heard = self._heard.get(store.name, (float("-inf"), False))
        if time.monotonic() - asked_at > _REMEMBERED:
            heard = await listened_to(store, listener_name(self._namespace, self._services, store))
            self._heard[store.name] = time.monotonic(), heard
        return heard
