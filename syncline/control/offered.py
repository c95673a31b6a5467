"""The embedding services that a process offers: opened by their settings, the first and maybe a second."""

from dataclasses import dataclass

from syncline.embeddings.service import EmbeddingService
from syncline.settings import FIRST_EMBEDDING, EmbeddingSettings

__all__ = ["OfferedEmbedding", "open_embedding"]


@dataclass(frozen=True, kw_only=True)
class OfferedEmbedding:
    """An embedding service of this process, and its settings."""

    service: EmbeddingService
    settings: EmbeddingSettings
    variables: str
    """What the names of these settings begin with."""


def open_embedding(settings: EmbeddingSettings, *, variables: str = FIRST_EMBEDDING) -> EmbeddingService:
    """Return the service that `settings.embedding` names. It connects on first use.

    `variables`: what the names of its settings begin with, for messages. Raise EmbeddingRejected if its URL
    or key is unusable.
    """
    # Only one of them is needed, and both are slow to import.
    if settings.embedding == "development":
        from syncline.embeddings.hashing import DevelopmentEmbedding

        return DevelopmentEmbedding(settings.embedding_dimensions)
    from syncline.embeddings.openai import OpenAIEmbedding

    return OpenAIEmbedding(
        settings.embedding_url,
        settings.embedding_model,
        settings.embedding_dimensions,
        api_key=settings.embedding_api_key,
        key_header=settings.embedding_api_key_header,
        headers=settings.embedding_headers,
        body=settings.embedding_body,
        send_dimensions=settings.embedding_send_dimensions,
        base64=settings.embedding_base64,
        batch=settings.embedding_batch,
        lanes=settings.embedding_lanes,
        requests_per_minute=settings.embedding_requests_per_minute,
        tokens_per_minute=settings.embedding_tokens_per_minute,
        timeout_seconds=settings.embedding_timeout_seconds,
        variables=variables,
    )
