"""Readiness of a worker: it logs in to all stores and services of its settings before it polls.

A store that refuses the login means wrong settings: a default store ends the worker; a further store is
logged, and its graphs are left to other workers. An unreachable server is not an error: the worker waits for
the default stores, and does not poll until then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Final

from syncline.control.services import Services
from syncline.embeddings.service import Vectors
from syncline.errors import EmbeddingError, StoreError, StoreUnusable, VectorStoreError
from syncline.logs import get_log
from syncline.settings import Settings
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import VectorStore

__all__ = ["for_development", "log_in", "reach_embedding", "reach_second", "reach_vectors", "stores_regained"]

_SECONDS: Final = 10.0
"""Seconds to try a service that is not waited for."""
_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
_WORD: Final = "syncline"
_PROBE: Final = "syncline-ready"
"""A collection that does not exist: a request for it shows that the store answers and accepts the key."""


async def log_in(services: Services) -> None:
    """Return once every default store has accepted a login; all other services are tried, failures logged.

    Raise StoreUnusable for a default store that refuses this worker. An unreachable one is waited for
    indefinitely, with one warning.
    """
    settings = services.settings
    system = [services.store("write", None), services.store("graph", None)]
    if settings.control_dsn is not None:
        system.append(services.control)
    further = [services.store("write", key) for key in settings.stores]
    for store in (*system, *further):
        if store.login.dsn.unverified:
            get_log().warning(
                "server certificate not verified",
                store=store.name,
                sslmode=store.login.dsn.tls.mode,
                fix="sslmode=verify-full with sslrootcert: docs/connections.md",
            )
    for what, fix in for_development(settings).items():
        get_log().warning(f"{what} outside a development stack", fix=fix)
    vectors = [None, *settings.qdrants]
    trials: list[Coroutine[object, object, None]] = [
        *(_waited_for(store) for store in system),
        *(
            _tried("store", key, _logging_in(store))
            for key, store in zip(settings.stores, further, strict=True)
        ),
        *(_tried("vector store", key or "qdrant", partial(reach_vectors, services, key)) for key in vectors),
        _tried("embedding service", settings.embedding, partial(reach_embedding, services)),
        *(
            _tried("second embedding service", second.embedding, partial(reach_second, services))
            for second in (settings.second,)
            if second is not None
        ),
    ]
    tasks = [asyncio.create_task(trial) for trial in trials]
    try:
        # A refusal is raised at once, even while another store is still waited for.
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def for_development(settings: Settings) -> Mapping[str, str]:
    """Return what of the settings is for development only -> its fix; nothing in a development stack."""
    found = {}
    if settings.qdrant_url is None:
        found["embedded vector store"] = (
            "Set SYNCLINE_QDRANT_URL: a folder is opened by one process, and each worker would have its own."
        )
    if settings.embedding == "development":
        found["development embedding"] = "Set SYNCLINE_EMBEDDING=openai: hashes of words find no meaning."
    if settings.second is not None and settings.second.embedding == "development":
        found["second development embedding"] = (
            "Set SYNCLINE_SECOND_EMBEDDING=openai: hashes of words find no meaning."
        )
    return {} if settings.dev_stack else found


async def stores_regained(services: Services) -> None:
    """Return once no default store refuses this process any more; refusing stores are retried."""
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
                "waiting for a store before polling", store=store.name, error=str(error)
            )
            told = True
        else:
            if told:
                get_log().info("store answers", store=store.name)
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _tried(what: str, name: str, try_it: Callable[[], Awaitable[object]]) -> None:
    """Try a service, and log a failure: its graphs are left to other workers, or get their vectors later."""
    try:
        async with asyncio.timeout(_SECONDS):
            await try_it()
    except TimeoutError:
        problem = f"no answer within {_SECONDS:g} s"
    except (StoreError, VectorStoreError, EmbeddingError) as error:
        problem = str(error)
    else:
        return
    get_log().warning("service of the settings cannot be used", service=what, name=name, error=problem)


async def reach_vectors(services: Services, key: str | None) -> VectorStore:
    """Return a vector store after a request that it accepted."""
    store = services.vector_store(key)
    await store.count(_PROBE)
    return store


async def reach_embedding(services: Services) -> Vectors:
    """Return the vector of one word, from a request to the embedding service."""
    return await services.embedding.embed([_WORD])


async def reach_second(services: Services) -> Vectors | None:
    """Return the same of the second embedding service; None if the settings have none."""
    second = services.second_embedding
    return None if second is None else await second.embed([_WORD])
