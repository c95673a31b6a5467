"""The URL of a Qdrant server: which port it means, and how messages name it."""

import pytest
from pydantic import SecretStr

from syncline.errors import VectorStoreRejected, VectorStoreUnavailable
from syncline.stores.qdrant_server import QdrantServerStore


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://127.0.0.1", "127.0.0.1:443"),
        ("http://127.0.0.1", "127.0.0.1:6333"),
        ("http://127.0.0.1:9", "127.0.0.1:9"),
        ("https://[::1]/qdrant", "[::1]:443"),
    ],
)
async def test_a_server_that_is_not_reached_is_named_by_host_and_port(url: str, place: str) -> None:
    store = QdrantServerStore("main", url, timeout_seconds=2)
    assert store.address == place
    with pytest.raises(VectorStoreUnavailable) as failure:
        await store.count("none")
    await store.close()
    assert f"not reached at {place}" in str(failure.value)


@pytest.mark.parametrize(
    "url", ["https://me:pw@q.example", "https://q.example#part", "https://q.example:port", "q.example"]
)
def test_a_url_that_cannot_be_meant_is_refused(url: str) -> None:
    with pytest.raises(VectorStoreRejected, match="SYNCLINE_QDRANT_URL") as refused:
        QdrantServerStore("main", url, SecretStr("key"))
    assert "pw" not in str(refused.value)
