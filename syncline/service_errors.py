"""Errors of what a worker asks beside Postgres: vector stores, embedding services, providers.

`syncline.errors` draws them in its hierarchy, and everything is imported from there.
"""

from syncline.error_base import SynclineError

__all__ = [
    "EmbeddingError",
    "EmbeddingRejected",
    "EmbeddingUnavailable",
    "ProviderBlocked",
    "ProviderGone",
    "ProviderMisbehaved",
    "ProviderNotReady",
    "VectorStoreError",
    "VectorStoreRejected",
    "VectorStoreUnavailable",
]


class VectorStoreError(SynclineError):
    """The vector store failed. `store` is its config key."""

    def __init__(self, store: str, problem: str) -> None:
        self.store = store
        super().__init__(f"Vector store '{store}': {problem}")
        self.problem = problem


class VectorStoreUnavailable(VectorStoreError):
    """The vector store cannot be reached or cannot serve now."""

    retryable = True


class VectorStoreRejected(VectorStoreError):
    """The vector store refused the request itself."""


class EmbeddingError(SynclineError):
    """The embedding service failed. `service` names it, without credentials."""

    def __init__(self, service: str, problem: str) -> None:
        self.service = service
        super().__init__(f"Embedding service '{service}': {problem}")
        self.problem = problem


class EmbeddingUnavailable(EmbeddingError):
    """The embedding service cannot be reached or cannot serve now."""

    retryable = True


class EmbeddingRejected(EmbeddingError):
    """The embedding service refused the request itself."""


class ProviderMisbehaved(SynclineError):
    """A provider did what it must not, and was contained. `trouble` is a word for it, `do` the way out."""

    def __init__(self, provider_id: str, *, distribution: str, trouble: str, did: str, do: str) -> None:
        self.provider_id, self.distribution, self.trouble = provider_id, distribution, trouble
        super().__init__(f"Provider '{provider_id}' of distribution '{distribution}' {did}.", fix=do)


class ProviderBlocked(ProviderMisbehaved):
    """A provider keeps the event loop of its room from running."""

    retryable = True


class ProviderNotReady(ProviderMisbehaved):
    """A provider's `initialize` failed, or is not to be tried again yet."""

    retryable = True


class ProviderGone(SynclineError):
    """This worker lacks the provider that the graph needs; another one may have it."""

    retryable = True
    benign = True

    def __init__(self, graph: str, provider_id: str) -> None:
        self.graph, self.provider_id = graph, provider_id
        needed = f"Graph '{graph}' needs provider '{provider_id}', which is not installed in this worker"
        super().__init__(f"{needed}.", fix="The next attempt may meet a worker that has it.")
