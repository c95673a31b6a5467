"""The contract of kind `fact_decomposition`: the text of one raw source in, the facts in it out."""

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, JsonValue

from syncline.provider import Provider

__all__ = ["FACT_DECOMPOSITION_API_VERSION", "DecomposedFact", "FactDecompositionProvider", "SourceText"]

FACT_DECOMPOSITION_API_VERSION = 1
"""The version of this contract. A provider declares the one it was written for."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceText(_Part):
    """What is to be decomposed: one raw source, as text."""

    key: str
    """Of the raw source in the write-db."""
    text: str
    title: str | None = None
    uri: str | None = None


class DecomposedFact(_Part):
    """One statement that the source makes, understandable without it."""

    content: str
    fact_type: str = "claim"
    snippet: str | None = None
    """The words of the source that say so."""
    metadata: dict[str, JsonValue] = {}


@runtime_checkable
class FactDecompositionProvider(Provider, Protocol):
    """Finds the facts in a text. Its `kind` is `fact_decomposition`."""

    kind: str

    @abstractmethod
    async def decompose(self, source: SourceText, options: BaseModel) -> tuple[DecomposedFact, ...]:
        """Return the facts of the source in the order of the text; none is an answer.

        `options` are the composition's, validated by the provider's `options_model`. It keeps nothing of a
        graph, it may be called for many sources at once, and it ends on cancellation.
        """
