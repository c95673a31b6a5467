"""Bodies of requests that write points: the JSON that the client would send, in fewer bytes."""

import json
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import models

from syncline.stores.edge_shard import EdgeShard
from syncline.stores.point_bodies import PointBodies
from syncline.stores.vectors import JsonPayload, PointPayload

PAYLOADS = (
    {"sync_hash": "a" * 32, "visibility": None, "tags": ["ü", '"', "\u2028"]},
    {"big": 10**30, "huge": float("inf"), "nested": {"none": None, "half": 0.5}},
    {},
)


async def test_a_body_says_what_the_client_would() -> None:
    points = [PointPayload(UUID(int=number), payload) for number, payload in enumerate(PAYLOADS)]
    matrix = np.array([[0.1, -3e-7, 1e30], [1 / 3, 0, -0.0], [2, 16777216, 1e-45]], dtype=np.float32)
    bodies = await PointBodies.of(points, matrix)
    for part in ([0, 1, 2], [2], [0, 2]):
        batch = models.Batch(
            ids=[str(points[item].id) for item in part],
            vectors=matrix[part].tolist(),
            payloads=[dict(points[item].payload) for item in part],
        )
        by_client = json.loads(models.PointsBatch(batch=batch).model_dump_json(exclude_none=True))
        ours = json.loads(bodies.body(part))
        # The same float32 in fewer digits.
        sent = np.array(ours["batch"].pop("vectors"), dtype=np.float32)
        assert (sent == np.array(by_client["batch"].pop("vectors"), dtype=np.float32)).all()
        assert ours == by_client
        assert len(bodies.body(part)) <= sum(bodies.sizes[item] for item in part) + 50
    assert len(bodies.body([0, 1, 2])) > sum(bodies.sizes) - 24


async def test_a_vector_takes_no_more_than_its_digits_as_float32() -> None:
    matrix = np.random.default_rng(1).standard_normal((3, 384)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1)[:, None]
    bodies = await PointBodies.of([PointPayload(UUID(int=number), {}) for number in range(3)], matrix)
    assert max(bodies.sizes) < 13 * 384


async def test_a_payload_that_is_json_already_is_sent_as_it_is() -> None:
    text = '{"big": 1000000000000000000000000000000, "tags": ["\u00fc", "\\""], "sync_hash": "a"}'
    points = [PointPayload(UUID(int=1), JsonPayload(text))]
    bodies = await PointBodies.of(points, np.zeros((1, 2), dtype=np.float32))
    assert text.encode() in bodies.body([0])
    assert dict(points[0].payload) == json.loads(text)


def test_an_embedded_store_asks_for_the_space_that_payloads_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those from the outbox too, which are JSON already."""
    folder = tmp_path / "points"
    EdgeShard.create(folder, 2)
    points = [PointPayload(UUID(int=1), JsonPayload(json.dumps({"text": "x" * 2**20})))]
    usage = shutil.disk_usage(tmp_path)
    with closing(EdgeShard.load(folder)) as shard:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=65 * 2**20))
        for write in (
            partial(shard.upsert, points, np.ones((1, 2), dtype=np.float32)),
            partial(shard.overwrite_payload, points),
        ):
            with pytest.raises(OSError, match="disk is full"):
                write()
