"""Permission to write vectors: whether the graph's vectors are of the embedding that this cycle has."""

from collections.abc import Iterable

from syncline.engine.vectors.outbox import State
from syncline.errors import EmbeddingDiffers, EmbeddingError
from syncline.provider import SyncContext

__all__ = ["refusal_to_write"]


async def refusal_to_write(context: SyncContext, states: Iterable[State]) -> EmbeddingError | None:
    """Return why this cycle must not write vectors; None if it may.

    The control plane knows what the graph's vectors are made with. Without one, its collections do: they are
    not made again with another embedding by whoever happens to run.
    """
    made_by = sorted({state["embedding"] for state in states if state["embedding"] is not None})
    if context.may_embed is not None:
        return await context.may_embed(made_by)
    mine = context.embedding.name
    others = [name for name in made_by if name != mine]
    if not others:
        return None
    return EmbeddingDiffers(
        mine,
        context.graph.slug,
        found=others[0],
        mine=mine,
        settings=["SYNCLINE_EMBEDDING, _MODEL and _DIMENSIONS"],
    )
