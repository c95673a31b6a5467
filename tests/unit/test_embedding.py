"""The settings choose the embedding service."""

import pytest
from pydantic import SecretStr

from syncline.control.offered import open_embedding
from syncline.control.services import Services
from syncline.embeddings.service import EmbeddingService
from syncline.errors import EmbeddingRejected
from syncline.settings import Settings
from tests.kit.faulty_http import Answer, FaultyServer

DSN = SecretStr("postgresql://localhost/nothing")


def opened(settings: Settings) -> EmbeddingService:
    return open_embedding(settings)


async def test_the_development_service_is_the_default() -> None:
    service = opened(Settings(write_dsn=DSN, graph_dsn=DSN, embedding_dimensions=16))
    assert (service.name, service.dimensions) == ("development-hash-16", 16)
    assert (await service.embed(["Finland"])).shape == (1, 16)
    await service.close()


async def test_an_openai_compatible_service_is_opened_when_asked_for() -> None:
    settings = Settings(
        write_dsn=DSN,
        graph_dsn=DSN,
        embedding="openai",
        embedding_url="http://127.0.0.1:1/v1",
        embedding_api_key=SecretStr("sk-x"),
        embedding_model="tiny",
        embedding_dimensions=16,
    )
    service = opened(settings)
    assert (service.name, service.dimensions) == ("openai-tiny-16", 16)
    await service.close()


async def test_the_second_service_is_opened_by_its_own_settings_and_names_them() -> None:
    settings = Settings.model_validate(
        {
            "write_dsn": DSN,
            "graph_dsn": DSN,
            "embedding_dimensions": 16,
            "second_embedding": "openai",
            "second_embedding_url": "http://127.0.0.1:1/v1",
            "second_embedding_model": "large",
            "second_embedding_dimensions": 32,
            "second_embedding_tokens_per_day": 100,
        }
    )
    async with Services.open(settings) as services:
        names = [(one.service.name, one.service.dimensions, one.variables) for one in services.offered]
        assert names == [
            ("development-hash-16", 16, "SYNCLINE_EMBEDDING"),
            ("openai-large-32", 32, "SYNCLINE_SECOND_EMBEDDING"),
        ]
        assert services.usage.budget_of("development-hash-16").tokens_per_day is None
        budget = services.usage.budget_of("openai-large-32")
        assert (budget.tokens_per_day, budget.variables) == (100, "SYNCLINE_SECOND_EMBEDDING")


async def test_messages_of_the_second_service_name_its_own_settings() -> None:
    with FaultyServer(Answer(status=404)) as server:
        settings = Settings.model_validate(
            {
                "write_dsn": DSN,
                "graph_dsn": DSN,
                "second_embedding": "openai",
                "second_embedding_url": server.url,
            }
        )
        async with Services.open(settings) as services:
            second = services.second_embedding
            assert second is not None
            with pytest.raises(EmbeddingRejected) as refused:
                await second.embed(["text"])
    assert "SYNCLINE_SECOND_EMBEDDING_URL" in str(refused.value)
    assert "SYNCLINE_EMBEDDING_" not in str(refused.value)
