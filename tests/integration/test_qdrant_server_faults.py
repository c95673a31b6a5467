"""What a Qdrant server can do wrong, done by a real HTTP server; and that no message tells the key."""

import json
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from syncline.errors import VectorStoreError, VectorStoreRejected, VectorStoreUnavailable
from syncline.stores.qdrant_server import QdrantServerStore
from syncline.stores.vectors import PointPayload
from tests.kit.faulty_http import Answer, FaultyServer, Request
from tests.kit.secrecy import everything_said

KEY = "sk-qdrant-3f9a77"


def said(text: str) -> bytes:
    return json.dumps({"status": {"error": text}, "time": 0.001}).encode()


def result(value: object) -> Answer:
    return Answer(body=json.dumps({"result": value, "status": "ok", "time": 0.001}).encode())


WRITTEN = result({"operation_id": 1, "status": "completed"})
MISSING = Answer(404, said("Not found: Collection `nodes` doesn't exist!"))


def store_on(url: str) -> QdrantServerStore:
    return QdrantServerStore("system", url, SecretStr(KEY), timeout_seconds=1)


async def upsert(store: QdrantServerStore, count: int = 1) -> None:
    points = [PointPayload(uuid4(), {"name": "é", "none": None}) for _ in range(count)]
    await store.upsert("nodes", points, np.ones((count, 3), dtype=np.float32))


async def failure_of(call: Awaitable[object]) -> VectorStoreError:
    with pytest.raises(VectorStoreError) as raised:
        await call
    told = everything_said(raised.value)
    assert KEY not in told
    assert "system" in told
    return raised.value


async def failure_with(answer: Answer) -> VectorStoreError:
    with FaultyServer(answer) as server:
        store = store_on(server.url)
        failure = await failure_of(upsert(store))
        await store.close()
        assert server.requests[0].headers["api-key"] == KEY
    return failure


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_answers_that_pass_are_worth_a_retry(status: int) -> None:
    failure = await failure_with(Answer(status, said(f"busy {KEY}")))
    assert isinstance(failure, VectorStoreUnavailable)
    assert f"HTTP {status}" in str(failure)
    assert "busy" in str(failure)


@pytest.mark.parametrize("after", ["7", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_a_server_that_asks_for_a_pause_is_worth_a_retry(after: str) -> None:
    failure = await failure_with(Answer(429, said("too many requests"), {"retry-after": after}))
    assert isinstance(failure, VectorStoreUnavailable)
    assert after in str(failure)


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (400, "request does not suit"),
        (401, "SYNCLINE_QDRANT_API_KEY"),
        (403, "SYNCLINE_QDRANT_API_KEY"),
        (404, "the next cycle creates it"),
        (409, "request does not suit"),
        (422, "request does not suit"),
    ],
)
async def test_refusals_are_not_retried_and_tell_the_fix(status: int, fix: str) -> None:
    failure = await failure_with(Answer(status, said(f"refused because of {KEY} " + "x" * 5000)))
    assert isinstance(failure, VectorStoreRejected)
    assert f"HTTP {status}" in str(failure)
    assert "refused because" in str(failure)
    assert fix in str(failure)
    assert len(str(failure)) < 600


@pytest.mark.parametrize(
    "body", [b"<html>hello</html>", b'{"result":', b"", b'{"result": 3}', b'{"result": null, "status": "ok"}']
)
async def test_garbage_is_worth_a_retry(body: bytes) -> None:
    assert isinstance(await failure_with(Answer(body=body)), VectorStoreUnavailable)


async def test_silence_ends_with_the_timeout() -> None:
    failure = await failure_with(Answer(silence_seconds=30))
    assert isinstance(failure, VectorStoreUnavailable)
    assert "no answer in time" in str(failure)


async def test_a_port_where_nobody_listens_is_worth_a_retry() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        store = store_on(f"http://127.0.0.1:{held.getsockname()[1]}")
        failure = await failure_of(store.count("nodes"))
        await store.close()
    assert isinstance(failure, VectorStoreUnavailable)
    assert "not reached" in str(failure)


async def test_a_server_that_does_not_speak_tls_is_worth_a_retry() -> None:
    with FaultyServer(WRITTEN) as server:
        store = store_on(server.url.replace("http:", "https:"))
        assert isinstance(await failure_of(upsert(store)), VectorStoreUnavailable)
        await store.close()


async def test_a_write_that_was_accepted_but_not_applied_is_not_durable() -> None:
    failure = await failure_with(result({"operation_id": 1, "status": "wait_timeout"}))
    assert isinstance(failure, VectorStoreUnavailable)


async def test_a_404_that_is_not_qdrants_does_not_pass_for_an_empty_store() -> None:
    calls: list[Callable[[QdrantServerStore], Awaitable[object]]] = [
        lambda store: store.count("nodes"),
        lambda store: store.delete("nodes", [uuid4()]),
        lambda store: store.search("nodes", [1.0], limit=1),
    ]
    with FaultyServer(Answer(404, b"404 page not found")) as server:
        store = store_on(server.url)
        for call in calls:
            failure = await failure_of(call(store))
            assert isinstance(failure, VectorStoreRejected)
            assert "not that of a Qdrant server" in str(failure)
        server.answers[0] = MISSING
        assert await calls[0](store) == 0
        await calls[1](store)
        assert await calls[2](store) == []
        await store.close()


async def test_writes_wait_and_travel_in_bounded_batches_a_few_at_once() -> None:
    slow = Answer(body=WRITTEN.body, silence_seconds=0.05)
    with FaultyServer(slow) as server:
        store = store_on(server.url)
        await upsert(store, 256 * 9 + 1)
        await store.close()
    sizes = sorted(len(json.loads(request.body)["batch"]["ids"]) for request in server.requests)
    assert sizes == [1] + [256] * 9
    assert all("wait=true" in request.path for request in server.requests)
    assert 1 < server.most_at_once <= 4
    assert json.loads(server.requests[0].body)["batch"]["payloads"][0] == {"name": "é", "none": None}


async def test_one_batch_that_keeps_failing_fails_the_write() -> None:
    with FaultyServer(WRITTEN, WRITTEN, Answer(503, said("restarting"))) as server:
        store = store_on(server.url)
        assert isinstance(await failure_of(upsert(store, 256 * 12)), VectorStoreUnavailable)
        await store.close()
    assert len(server.requests) < 2 + 2 * 4 + 1  # those under way, and what asked whether anything passes


async def test_one_batch_that_fails_once_is_sent_again() -> None:
    with FaultyServer(WRITTEN, WRITTEN, Answer(503, said("busy")), WRITTEN) as server:
        store = store_on(server.url)
        await upsert(store, 256 * 6)
        await store.close()


def is_upsert(request: Request) -> bool:
    return request.method == "PUT"


async def test_large_points_travel_in_requests_of_a_megabyte() -> None:
    with FaultyServer(WRITTEN) as server:
        store = store_on(server.url)
        points = [PointPayload(uuid4(), {"text": "x" * 300_000}) for _ in range(7)]
        await store.upsert("nodes", points, np.ones((7, 3), dtype=np.float32))
        await store.close()
    sizes = sorted(len(json.loads(request.body)["batch"]["ids"]) for request in server.requests)
    assert sizes == [1, 3, 3]


@pytest.mark.parametrize("refusal", [Answer(cut=True), Answer(413), Answer(500, b"buffer")])
async def test_a_server_that_takes_only_small_requests_gets_them_and_later_ones_are_small(
    refusal: Answer,
) -> None:
    with FaultyServer(respond=lambda request: refusal if len(request.body) > 100_000 else WRITTEN) as server:
        store = store_on(server.url)
        for _ in range(2):
            points = [PointPayload(uuid4(), {"text": "x" * 10_000}) for _ in range(50)]
            before = len(server.requests)
            await store.upsert("nodes", points, np.ones((50, 3), dtype=np.float32))
        await store.close()
    again = server.requests[before:]
    assert sum(len(json.loads(request.body)["batch"]["ids"]) for request in again) == 50
    assert all(len(request.body) <= 100_000 for request in again)


@pytest.mark.parametrize("refusal", [Answer(400, said("payload is bad")), Answer(500, said("panic"))])
async def test_points_that_are_refused_are_named_and_all_others_are_written(refusal: Answer) -> None:
    written: set[str] = set()

    def respond(request: Request) -> Answer:
        if not is_upsert(request):
            return WRITTEN
        batch = json.loads(request.body)["batch"]
        if any(payload["n"] in (3, 41) for payload in batch["payloads"]):
            return refusal
        written.update(batch["ids"])
        return WRITTEN

    points = [PointPayload(uuid4(), {"n": n}) for n in range(300)]
    with FaultyServer(respond=respond) as server:
        store = store_on(server.url)
        with pytest.raises(VectorStoreRejected) as failure:
            await store.upsert("nodes", points, np.ones((300, 3), dtype=np.float32))
        await store.close()
    assert failure.value.points.keys() == {points[3].id, points[41].id}
    assert written == {str(point.id) for point in points} - {str(points[3].id), str(points[41].id)}
    assert len(server.requests) < 80


async def test_a_server_that_refuses_every_point_is_not_asked_about_each() -> None:
    for bad in (Answer(400, said("wrong vector")), Answer(500, said("panic"))):
        with FaultyServer(respond=lambda request, bad=bad: bad if is_upsert(request) else WRITTEN) as server:
            store = store_on(server.url)
            failure = await failure_of(upsert(store, 256))
            await store.close()
        assert isinstance(failure, VectorStoreRejected)
        assert failure.all_points
        assert len(server.requests) < 40


@pytest.mark.parametrize(
    ("status", "told", "kind", "says"),
    [
        (500, "Service internal error: No space left on device", VectorStoreUnavailable, "storage is full"),
        (507, "Insufficient Storage", VectorStoreUnavailable, "storage is full"),
        (403, "Forbidden: only read access", VectorStoreRejected, "key that may write"),
        (400, "Max vector storage size limit of 9 bytes exceeded", VectorStoreRejected, "strict_mode_config"),
    ],
)
async def test_what_concerns_every_point_is_asked_once(
    status: int, told: str, kind: type[VectorStoreError], says: str
) -> None:
    with FaultyServer(Answer(status, said(told))) as server:
        store = store_on(server.url)
        failure = await failure_of(upsert(store, 200))
        await store.close()
    assert isinstance(failure, kind)
    assert says in str(failure)
    assert not failure.of_request
    assert len(server.requests) == 1


async def test_a_strict_collection_gets_as_few_points_as_it_takes() -> None:
    def respond(request: Request) -> Answer:
        points = len(json.loads(request.body)["batch"]["ids"]) if is_upsert(request) else 0
        limit = said(f'Limit exceeded {points} > 40 for "upsert limit". Help: Reduce the "upsert limit"')
        return Answer(400, limit) if points > 40 else WRITTEN

    with FaultyServer(respond=respond) as server:
        store = store_on(server.url)
        await upsert(store, 256)
        before = len(server.requests)
        await upsert(store, 256)
        await store.close()
    assert len(server.requests) - before == 256 / 32


async def test_a_pause_that_the_server_asks_for_has_an_end() -> None:
    failure = await failure_with(Answer(429, said("too many writes"), {"retry-after": "7"}))
    assert isinstance(failure, VectorStoreUnavailable)
    assert failure.until is not None
    assert 0 < (failure.until - datetime.now(UTC)).total_seconds() <= 7


async def test_payloads_are_overwritten_by_filter_so_that_a_lost_point_stops_nothing() -> None:
    with FaultyServer(result([{"operation_id": 1, "status": "completed"}])) as server:
        store = store_on(server.url)
        point = PointPayload(uuid4(), {"name": "b"})
        await store.overwrite_payload("nodes", [point])
        await store.close()
    (operation,) = json.loads(server.requests[0].body)["operations"]
    assert operation["overwrite_payload"] == {
        "payload": {"name": "b"},
        "filter": {"must": [{"has_id": [str(point.id)]}]},
    }


def described(size: int = 3, distance: str = "Cosine") -> Answer:
    optimizer = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
    return result(
        {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "config": {
                "params": {"vectors": {"size": size, "distance": distance}},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {**optimizer, "flush_interval_sec": 5},
            },
            "payload_schema": {"type": {"data_type": "keyword", "points": 0}},
        }
    )


async def test_a_collection_that_another_worker_created_meanwhile_is_taken() -> None:
    exists = iter([False, True])
    taken = Answer(409, said("Wrong input: Collection `nodes` already exists!"))
    with FaultyServer(
        respond=lambda request: (
            result({"exists": next(exists)})
            if request.path.endswith("/exists")
            else taken
            if request.method == "PUT" and not request.path.split("?")[0].endswith("/index")
            else WRITTEN
            if request.method == "PUT"
            else described()
        )
    ) as server:
        store = store_on(server.url)
        assert not await store.ensure_collection("nodes", dimensions=3, indexed=["type", "visibility"])
        await store.close()
    indexed = [json.loads(r.body) for r in server.requests if r.path.split("?")[0].endswith("/index")]
    assert indexed == [{"field_name": "visibility", "field_schema": "keyword"}]


async def test_a_collection_of_another_kind_is_refused() -> None:
    for answer, problem in [(described(distance="Dot"), "Dot"), (described(size=4), "4 dimensions")]:
        with FaultyServer(result({"exists": True}), answer) as server:
            store = store_on(server.url)
            failure = await failure_of(store.ensure_collection("nodes", dimensions=3))
            await store.close()
        assert isinstance(failure, VectorStoreRejected)
        assert problem in str(failure)


@pytest.mark.parametrize("key", ["", "sk-é", "sk-a\nb", " sk-a"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(VectorStoreRejected, match="SYNCLINE_QDRANT_API_KEY") as refused:
        QdrantServerStore("system", "https://qdrant.example", SecretStr(key))
    assert not key or key not in everything_said(refused.value)


@pytest.mark.parametrize("url", ["", "qdrant.example:6333", "ftp://qdrant.example", "http://[::1"])
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(VectorStoreRejected, match="SYNCLINE_QDRANT_URL"):
        QdrantServerStore("system", url)


async def test_a_key_without_tls_is_warned_about_unless_it_stays_on_this_machine() -> None:
    for url, warnings in [
        ("http://qdrant.example:6333", 1),
        ("http://127.0.0.1:6333", 0),
        ("https://qdrant.example", 0),
    ]:
        with capture_logs() as logs:
            store = store_on(url)
        assert len(logs) == warnings
        assert KEY not in str(logs)
        await store.close()
