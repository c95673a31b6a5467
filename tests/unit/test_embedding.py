"""The settings choose the embedding service."""

from pydantic import SecretStr

from syncline.control.services import open_embedding
from syncline.embeddings.service import EmbeddingService
from syncline.settings import Settings

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
