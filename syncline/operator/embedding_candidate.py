"""Which embedding a graph would change to, and why it cannot be started now."""

from collections.abc import Sequence
from typing import Final

from syncline.control.offered import OfferedEmbedding
from syncline.errors import EmbeddingChangeRefused
from syncline.messages.base import GraphStatus
from syncline.operator.embedding_state import GraphEmbeddings
from syncline.quoting import shown

__all__ = ["candidate", "obstacles", "refuse_beside_earlier", "refused"]

_SECOND: Final = (
    "Start the workers with SYNCLINE_SECOND_EMBEDDING and what belongs to it, then try again: "
    "docs/embeddings.md."
)


def obstacles(found: GraphEmbeddings) -> Sequence[tuple[str, str]]:
    """Return why a second embedding cannot be started whatever it is, each with its fix."""
    slug, reasons = found.graph.slug, []
    if found.graph.status is GraphStatus.ARCHIVED:
        reasons.append(
            ("the graph is archived, so nothing would fill it", f"`syncline graph resume {slug}`.")
        )
    if found.graph.shadowed:
        fix = (
            f"Promote it (`syncline provider promote {slug}`), or drop it by `syncline graph set {slug} "
            "--drop-shadow` with a `--composition` that declares none; then start again."
        )
        reasons.append(("the graph has a shadow, which has collections of its own", fix))
    if not found.projections:
        reasons.append(("its map has no collections", "There is nothing to embed."))
        return reasons
    main = found.records.get(found.generations.main)
    if main is None or main.dimensions is None:
        fix = (
            f"Once it has something to embed, `syncline sync {slug}` records it. Until then, "
            "another embedding takes no more than other settings of the workers."
        )
        reasons.append(
            ("what its vectors are made with is not recorded, since no cycle has written any", fix)
        )
    return reasons


def candidate(found: GraphEmbeddings, embedding: str | None) -> OfferedEmbedding:
    """Return the embedding that the graph would change to; raise EmbeddingChangeRefused if there is none."""
    offered = found.services.offered
    main = found.records.get(found.generations.main)
    # Without a record, the first one is what a cycle would record.
    others = list(offered[1:])
    if main is not None:
        others = [one for one in offered if main.differences(found.recorded_as(one))]
    if embedding is not None:
        others = [one for one in others if one.service.name == embedding]
        if not others and main is not None and main.embedding == embedding:
            raise refused(found, f"its vectors are made with {shown(embedding)} already", _SECOND)
        if not others:
            known = ", ".join(one.service.name for one in offered)
            raise refused(found, f"this worker offers no embedding {shown(embedding)}, only {known}", _SECOND)
    if others:
        return others[-1]
    if len(offered) == 1:
        raise refused(found, "this worker offers no second embedding", _SECOND)
    raise refused(
        found,
        f"the second embedding of this worker, {offered[1].service.name}, is what its vectors are made with",
        "Correct SYNCLINE_SECOND_EMBEDDING, _MODEL, _DIMENSIONS or _URL of the workers, and restart them.",
    )


async def refuse_beside_earlier(found: GraphEmbeddings, action: str) -> None:
    """Raise EmbeddingChangeRefused while a live worker may be of an earlier release, by its registration.

    Those know one generation: once the second is the main one, they would make the first again and write
    every change there, where nobody looks.
    """
    earlier = [worker for worker in await found.services.workers.list() if not worker.embeddings]
    if not earlier:
        return
    named = ", ".join(f"{worker.identity} ({worker.syncline_version})" for worker in earlier)
    raise EmbeddingChangeRefused(
        found.graph.slug,
        action,
        "workers run that have registered no embedding, as those of earlier releases, which know one "
        f"generation of collections only: {named}",
        fix="Restart them with this release and a usable embedding. One that ended counts for two minutes.",
    )


def refused(found: GraphEmbeddings, problem: str, fix: str) -> EmbeddingChangeRefused:
    """Return the refusal of a start."""
    return EmbeddingChangeRefused(found.graph.slug, "start", problem, fix=fix)
