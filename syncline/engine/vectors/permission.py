"""Permission to write vectors: which of the services makes the vectors of a generation, if any."""

from collections.abc import Iterable

from syncline.embeddings.service import EmbeddingService
from syncline.engine.vectors.outbox import State
from syncline.errors import EmbeddingDiffers, EmbeddingError
from syncline.provider import SyncContext

__all__ = ["service_of"]


async def service_of(
    context: SyncContext, states: Iterable[State], *, generation: int, second: bool = False
) -> EmbeddingService | EmbeddingError:
    """Return the service of a generation, or why this cycle must not write its vectors.

    The control plane knows what they are made with. Without one, its collections do: they are not made again
    with another embedding by whoever happens to run.
    """
    made_by = sorted({state["embedding"] for state in states if state["embedding"] is not None})
    if context.embedding_of is not None:
        found = await context.embedding_of(generation, made_by, second)
        return found if isinstance(found, EmbeddingError) else context.embeddings[found]
    if context.may_embed is not None and not second:
        return await context.may_embed(made_by) or context.embedding
    offered = {service.name: service for service in reversed(context.embeddings)}
    if not made_by and not second:
        return context.embedding
    if not made_by and len(context.embeddings) > 1:
        return context.embeddings[-1]
    if len(made_by) == 1 and made_by[0] in offered:
        return offered[made_by[0]]
    mine = context.embedding.name
    return EmbeddingDiffers(
        mine,
        context.graph.slug,
        found=next((name for name in made_by if name not in offered), "another service"),
        mine=mine,
        settings=["SYNCLINE_EMBEDDING, _MODEL and _DIMENSIONS"],
        second=second,
    )
