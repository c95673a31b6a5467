"""Whether a worker can do its work: it logs in to everything that its settings name before it takes any.

A store that refuses it is a fault of its settings: of the system's own stores that ends it, of a further one
it is said, and graphs that are kept there are left to other workers. A server that is away is no fault: the
worker waits for the system's own, and takes no work until then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Final

from syncline.control.services import Services
from syncline.embeddings.service import Vectors
from syncline.errors import EmbeddingError, StoreError, StoreUnusable, VectorStoreError
from syncline.logs import get_log
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import VectorStore

__all__ = ["log_in", "reach_embedding", "reach_vectors", "stores_regained"]

_SECONDS: Final = 10.0
"""For a service that is not waited for."""
_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
_PROBE: Final = "syncline-ready"
"""A collection that nobody has: asking for it shows that the store answers, and takes our key."""


async def log_in(services: Services) -> None:
    """Return once every store of the system has taken a login; all else is tried, and told when it fails.

    Raise StoreUnusable for a store of the system that refuses this worker. One that is away is waited for,
    without end and with one warning.
    """
    settings = services.settings
    system = [services.store("write", None), services.store("graph", None)]
    if settings.control_dsn is not None:
        system.append(services.control)
    further = [services.store("write", key) for key in settings.stores]
    for store in (*system, *further):
        if store.login.dsn.unverified:
            get_log().warning(
                "the server's certificate is not verified",
                store=store.name,
                sslmode=store.login.dsn.tls.mode,
                fix="sslmode=verify-full with sslrootcert: docs/connections.md",
            )
    vectors = [None, *settings.qdrants]
    trials: list[Coroutine[object, object, None]] = [
        *(_waited_for(store) for store in system),
        *(
            _tried("store", key, _logging_in(store))
            for key, store in zip(settings.stores, further, strict=True)
        ),
        *(_tried("vector store", key or "qdrant", partial(reach_vectors, services, key)) for key in vectors),
        _tried("embedding service", settings.embedding, partial(reach_embedding, services)),
    ]
    tasks = [asyncio.create_task(trial) for trial in trials]
    try:
        # What is refused is told at once, also while another store is still waited for.
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def stores_regained(services: Services) -> None:
    """Return once no store of the system refuses this process any more; those that do are asked again."""
    pause = _LEAST_PAUSE
    while services.usability.barred:
        await asyncio.sleep(pause)
        for store in _refusing(services):
            try:
                await _logging_in(store)()
            except StoreError as error:
                get_log().debug("still refused", store=store.name, error=str(error))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _refusing(services: Services) -> Sequence[PostgresStore]:
    refused = services.usability.refused()
    stores = [services.store("write", None), services.store("graph", None), services.control]
    return [store for name, store in {store.name: store for store in stores}.items() if name in refused]


def _logging_in(store: PostgresStore) -> Callable[[], Awaitable[None]]:
    async def log_in() -> None:
        async with store.alone("ready"):
            pass

    return log_in


async def _waited_for(store: PostgresStore) -> None:
    pause, told = _LEAST_PAUSE, False
    while True:
        try:
            await _logging_in(store)()
        except StoreUnusable:
            raise
        except StoreError as error:
            log = get_log()
            (log.debug if told else log.warning)(
                "waiting for a store before any work is taken", store=store.name, error=str(error)
            )
            told = True
        else:
            if told:
                get_log().info("the store answers", store=store.name)
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _tried(what: str, name: str, try_it: Callable[[], Awaitable[object]]) -> None:
    """Try, and tell what is wrong: graphs that need it are left to others, or get their vectors later."""
    try:
        async with asyncio.timeout(_SECONDS):
            await try_it()
    except TimeoutError:
        problem = f"no answer within {_SECONDS:g} s"
    except (StoreError, VectorStoreError, EmbeddingError) as error:
        problem = str(error)
    else:
        return
    get_log().warning(
        "this worker cannot use a service that its settings name", service=what, name=name, error=problem
    )


async def reach_vectors(services: Services, key: str | None) -> VectorStore:
    """Return a vector store that has just answered, and taken our key."""
    store = services.vector_store(key)
    await store.count(_PROBE)
    return store


async def reach_embedding(services: Services) -> Vectors:
    """Return the vector of a word, as the embedding service has just given it."""
    return await services.embedding.embed(["syncline"])
