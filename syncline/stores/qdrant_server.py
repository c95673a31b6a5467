"""The vector store on a Qdrant server, over HTTP.

One module because each method is a few lines over one client, its watch and its errors.
"""

import asyncio
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import httpx
import structlog
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from syncline.embeddings.service import Vectors
from syncline.errors import VectorStoreError, VectorStoreRejected, VectorStoreUnavailable
from syncline.stores.answer_watch import AnswerPatience, AnswerWatch, unreached
from syncline.stores.collection_options import CollectionOptions
from syncline.stores.point_bodies import PointBodies
from syncline.stores.qdrant_collections import Difference, creation, difference
from syncline.stores.qdrant_failures import CLIENT_ERRORS, is_missing_collection, qdrant_failure
from syncline.stores.qdrant_url import server_url
from syncline.stores.sized_requests import PositionsRefused, SizedRequests
from syncline.stores.vectors import (
    AS_IT_IS,
    PointPayload,
    checked_name,
    checked_vectors,
    of_other_dimensions,
    payload_json,
)

_T = TypeVar("_T")
_POINT_BYTES = 64
_NO_POINT = UUID(int=0)
_PATIENCE = AnswerPatience()
_KEPT = httpx.Limits(max_connections=100, max_keepalive_connections=20)
"""As httpx keeps connections by itself; the client keeps none to a server on this machine."""
_PAGE_LIMIT = re.compile(r'Limit exceeded \d+ > (\d+) for "limit"')
_NOT_EXACTLY = "Exact search disabled"
_READ_PATIENCE = timedelta(minutes=2)
"""How long a read waits for limits, which are of a minute: nothing waits for a verification."""
_log = structlog.get_logger(__name__)


class QdrantServerStore:
    """One Qdrant server, or what `client` is connected to. Safe for concurrent use in one event loop."""

    def __init__(
        self,
        name: str,
        url: str = "",
        api_key: SecretStr | None = None,
        timeout_seconds: float = 30,
        *,
        client: AsyncQdrantClient | None = None,
        patience: AnswerPatience = _PATIENCE,
    ) -> None:
        """Connect lazily to `url` (https for TLS), or use `client` and take ownership of it.

        A request is given up after `timeout_seconds`, or once the server does not answer at all for the
        seconds of `patience`. Raises VectorStoreRejected if the URL or the key cannot work.
        """
        self._name, self._api_key = name, api_key
        self._url, self._place = server_url(name, url, api_key) if client is None else (url, "its client")
        self._client = client or self._connected(timeout_seconds)
        self._prober: AsyncQdrantClient | None = None
        self._patience = patience
        self._watch = AnswerWatch(self._probe, patience=patience)
        # What strict mode allows of a collection, as it was found out.
        self._inexact: set[str] = set()
        self._page: dict[str, int] = {}
        self._fixed_said: set[str] = set()
        self._requests = SizedRequests(name)

    @property
    def address(self) -> str:
        return self._place

    def _connected(self, timeout_seconds: float, limits: httpx.Limits = _KEPT) -> AsyncQdrantClient:
        with warnings.catch_warnings():
            # Logged with the URL, with the store's name, and only where the network could be monitored.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            return AsyncQdrantClient(
                url=self._url,
                api_key=self._api_key.get_secret_value() if self._api_key else None,
                timeout=timeout_seconds,  # type: ignore[arg-type]  # int by its stub, rounded up at run time
                check_compatibility=False,
                limits=limits,
            )

    @property
    def name(self) -> str:
        return self._name

    @property
    def silent_since(self) -> datetime | None:
        return self._watch.silent_since

    def doubt(self) -> None:
        self._watch.doubt()

    async def ensure_collection(
        self,
        collection: str,
        *,
        dimensions: int,
        indexed: Sequence[str] = (),
        options: CollectionOptions = AS_IT_IS,
    ) -> bool:
        checked_name(self._name, collection)
        created = False
        if not await self._call(self._client.collection_exists(collection)):
            created = await self._create(collection, dimensions, options)
        info = await self._call(self._client.get_collection(collection))
        params = info.config.params.vectors
        if not isinstance(params, models.VectorParams):
            raise VectorStoreRejected(
                self._name, f"collection '{collection}' has named vectors; it was not made by Syncline."
            )
        if params.size != dimensions:
            raise of_other_dimensions(self._name, collection, found=params.size, wanted=dimensions)
        if params.distance != models.Distance.COSINE:
            raise VectorStoreRejected(
                self._name, f"collection '{collection}' compares by {params.distance.value}, not by Cosine."
            )
        for field in indexed:
            if field not in info.payload_schema:
                await self._call(
                    self._client.create_payload_index(
                        collection, field, field_schema=models.PayloadSchemaType.KEYWORD, wait=True
                    )
                )
        if not created and options.given:
            await self._update(collection, difference(options, info))
        return created

    async def _update(self, collection: str, found: Difference) -> None:
        """Change what can be changed in a collection; log what only a new one gets, once a process."""
        if found.fixed and collection not in self._fixed_said:
            self._fixed_said.add(collection)
            _log.warning(
                "collection keeps settings that are fixed when it is made",
                store=self._name,
                collection=collection,
                settings=found.fixed,
                fix="drop it by `syncline graph drop-collections`: the next cycle makes it again",
            )
        if not found.changed:
            return
        request = self._client.update_collection(
            collection,
            vectors_config=None if found.vectors is None else {"": found.vectors},
            collection_params=found.params,
            hnsw_config=found.hnsw,
            quantization_config=found.quantization,
        )
        await self._call(request)
        _log.info(
            "collection has the settings of its graph",
            store=self._name,
            collection=collection,
            settings=found.changed,
        )

    async def _create(self, collection: str, dimensions: int, options: CollectionOptions) -> bool:
        """Create the collection; return False if another worker created it first."""
        try:
            await self._call(
                self._client.create_collection(collection, **creation(options, dimensions=dimensions))
            )
        except VectorStoreRejected:
            # The server answers 400 or 409 to the second creator.
            if not await self._call(self._client.collection_exists(collection)):
                raise
            return False
        return True

    async def upsert(self, collection: str, points: Sequence[PointPayload], vectors: Vectors) -> None:
        matrix = checked_vectors(self._name, points, vectors)
        rows = _last_of_each(points)
        if len(rows) < len(points):
            points, matrix = [points[row] for row in rows], matrix[rows]
        bodies = await PointBodies.of(points, matrix)

        async def send(part: Sequence[int]) -> None:
            self._applied(await self._call(self._upserted(collection, bodies.body(part))))

        await self._send(collection, points, bodies.sizes, send)

    async def _upserted(self, collection: str, body: bytes) -> models.UpdateResult:
        try:
            api = self._client.http.points_api
        except NotImplementedError:
            # A client without a server speaks no HTTP.
            batch = models.PointsBatch.model_validate_json(body).batch
            return await self._client.upsert(collection, batch, wait=True)
        # The client's own request, which sends what it cannot encode as it is: a body that is ready costs a
        # fifth of the CPU of its models. Errors and answers are read by the client as always.
        answer = await api.upsert_points(
            collection_name=collection,
            wait=True,
            point_insert_operations=body,  # type: ignore[arg-type]
        )
        if answer.result is None:
            raise AssertionError("an upsert has no result")  # as the client does
        return answer.result

    async def overwrite_payload(self, collection: str, points: Sequence[PointPayload]) -> None:
        kept = [points[row] for row in _last_of_each(points)]

        async def send(part: Sequence[int]) -> None:
            # By filter, because the server answers 404 for an unknown id.
            operations = [
                models.OverwritePayloadOperation(
                    overwrite_payload=models.SetPayload(
                        payload=dict(kept[item].payload),
                        filter=models.Filter(must=[models.HasIdCondition(has_id=[str(kept[item].id)])]),
                    )
                )
                for item in part
            ]
            self._applied(
                *await self._call(self._client.batch_update_points(collection, operations, wait=True))
            )

        await self._send(collection, kept, _sizes(kept), send)

    async def delete(self, collection: str, ids: Sequence[UUID]) -> None:
        async def send(part: Sequence[int]) -> None:
            await self._delete(collection, [ids[item] for item in part])

        points = [PointPayload(point, {}) for point in ids]
        await self._send(collection, points, _sizes(points), send)

    async def _delete(self, collection: str, ids: Sequence[UUID]) -> None:
        selector = models.PointIdsList(points=[str(point) for point in ids])
        request = self._client.delete(collection, points_selector=selector, wait=True)
        result = await self._call_if_there(request)
        if result is not None:
            self._applied(result)

    async def _send(
        self,
        collection: str,
        points: Sequence[PointPayload],
        sizes: Sequence[int],
        send: Callable[[Sequence[int]], Awaitable[None]],
    ) -> None:
        async def probe() -> VectorStoreError | None:
            """Delete a point that nobody has: a write, as harmless as there is one."""
            try:
                await self._delete(collection, [_NO_POINT])
            except VectorStoreError as failure:
                return failure
            return None

        try:
            await self._requests.send(sizes, send, probe=probe)
        except PositionsRefused as error:
            refused = {points[item].id: reason for item, reason in error.refused.items()}
            told = next(iter(refused.values()))
            raise VectorStoreRejected(self._name, told.problem, points=refused) from None

    async def count(self, collection: str) -> int:
        try:
            answer = await self._read(
                lambda: self._client.count(collection, exact=collection not in self._inexact)
            )
        except VectorStoreRejected as refusal:
            # Strict mode may forbid to count exactly.
            if collection in self._inexact or _NOT_EXACTLY not in refusal.problem:
                raise
            self._inexact.add(collection)
            answer = await self._read(lambda: self._client.count(collection, exact=False))
        return answer.count if answer is not None else 0

    async def is_empty(self, collection: str) -> bool:
        request = self._client.scroll(collection, limit=1, with_payload=False, with_vectors=False)
        page = await self._call_if_there(request)
        return page is None or not page[0]

    async def scroll(
        self, collection: str, *, batch: int = 1000, fields: Sequence[str] | None = None
    ) -> AsyncIterator[Sequence[PointPayload]]:
        selection = True if fields is None else list(fields) or False
        offset: models.ExtendedPointId | None = None
        while True:
            limit = min(batch, self._page.get(collection, batch))
            try:
                page = await self._read(
                    partial(
                        self._client.scroll,
                        collection,
                        limit=limit,
                        offset=offset,
                        with_payload=selection,
                        with_vectors=False,
                    )
                )
            except VectorStoreRejected as refusal:
                allowed = _PAGE_LIMIT.search(refusal.problem)
                if allowed is None or not 0 < int(allowed[1]) < limit:
                    raise
                self._page[collection] = int(allowed[1])
                _log.info(
                    "vector store allows smaller pages",
                    store=self._name,
                    collection=collection,
                    points=int(allowed[1]),
                )
                continue
            if page is None:
                return
            if page[0]:
                yield [self._point(record.id, record.payload) for record in page[0]]
            if page[1] is None:
                return
            offset = str(page[1])

    async def retrieve(self, collection: str, ids: Sequence[UUID]) -> Sequence[PointPayload]:
        wanted = [str(point) for point in ids]
        records = (
            await self._read(partial(self._client.retrieve, collection, wanted, with_payload=True)) or []
        )
        return [self._point(record.id, record.payload) for record in records]

    async def search(
        self, collection: str, vector: Sequence[float], *, limit: int
    ) -> Sequence[tuple[PointPayload, float]]:
        request = self._client.query_points(collection, query=list(vector), limit=limit, with_payload=True)
        answer = await self._call_if_there(request)
        found = answer.points if answer is not None else []
        return [(self._point(point.id, point.payload), point.score) for point in found]

    async def drop_collection(self, collection: str) -> None:
        await self._call_if_there(self._client.delete_collection(collection))

    async def set_aliases(self, aliases: Mapping[str, str]) -> None:
        if not aliases:
            return
        for name in (*aliases, *aliases.values()):
            checked_name(self._name, name)
        # Made where it is not moved: the server refuses to make one that is there.
        present = await self.aliases()
        operations: list[models.AliasOperations] = [
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            for alias in aliases
            if alias in present
        ]
        operations += [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(alias_name=alias, collection_name=collection)
            )
            for alias, collection in aliases.items()
        ]
        await self._call(self._client.update_collection_aliases(operations))

    async def aliases(self) -> Mapping[str, str]:
        answer = await self._call(self._client.get_aliases())
        return {found.alias_name: found.collection_name for found in answer.aliases}

    async def describe(self) -> str:
        answer = await self._call(self._client.info())
        return f"Qdrant {answer.version}"

    async def close(self) -> None:
        await self._watch.close()
        if self._prober is not None:
            await self._prober.close()
        await self._client.close()

    def _point(self, point: models.ExtendedPointId, payload: models.Payload | None) -> PointPayload:
        try:
            return PointPayload(UUID(str(point)), payload or {})
        except ValueError:
            raise VectorStoreRejected(
                self._name, f"point {point} has no UUID; the collection was not filled by Syncline."
            ) from None

    def _applied(self, *results: models.UpdateResult) -> None:
        if any(result.status == models.UpdateStatus.WAIT_TIMEOUT for result in results):
            raise VectorStoreUnavailable(self._name, "it accepted a write but did not apply it in time.")

    async def _probe(self) -> bool:
        """Return whether the server answers over a new connection, in whatever way."""
        if self._prober is None:
            # Connections that it does not keep: one of the other client's may be what is broken.
            limits = httpx.Limits(max_keepalive_connections=0)
            self._prober = self._connected(self._patience.silent, limits)
        try:
            await self._prober.http.service_api.healthz()
        except ResponseHandlingException as error:
            return not unreached(error.source, busy_answers=False)
        return True

    async def _call(self, request: Coroutine[object, object, _T]) -> _T:
        # Raised outside `except`: the client's exceptions hold the request and with it the key.
        try:
            return await self._watch.answer(request)
        except CLIENT_ERRORS as error:
            failure = qdrant_failure(self._name, self._place, error, self._api_key)
        raise failure

    async def _call_if_there(self, request: Coroutine[object, object, _T]) -> _T | None:
        """Await the request; return None when the collection does not exist."""
        try:
            return await self._watch.answer(request)
        except CLIENT_ERRORS as error:
            failure = (
                None
                if is_missing_collection(error)
                else qdrant_failure(self._name, self._place, error, self._api_key)
            )
        if failure is None:
            return None
        raise failure

    async def _read(self, ask: Callable[[], Coroutine[object, object, _T]]) -> _T | None:
        """Return the answer to a read as `_call_if_there` does; wait where a limit of reads asks for it."""
        give_up = datetime.now(UTC) + _READ_PATIENCE
        while True:
            try:
                return await self._call_if_there(ask())
            except VectorStoreUnavailable as failure:
                until = failure.until
                if until is None or until > give_up:
                    raise
            await asyncio.sleep(max((until - datetime.now(UTC)).total_seconds(), 0))


def _sizes(points: Sequence[PointPayload]) -> list[int]:
    return [len(payload_json(point.payload)) + _POINT_BYTES for point in points]


def _last_of_each(points: Sequence[PointPayload]) -> list[int]:
    """Return the row of each id's last point: batches are sent concurrently, so order decides nothing."""
    return list({point.id: row for row, point in enumerate(points)}.values())
