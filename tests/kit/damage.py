"""What verification finds of a graph that is not as it should be, for tests."""

from syncline.engine import KNOWLEDGE_GRAPH
from syncline.messages.verification import RelationKind
from syncline.testing.graphs import TestGraph
from syncline.verify import verify

__all__ = ["damage"]


async def damage(graph: TestGraph, *, vectors: bool = False, counted: bool = True) -> list[str]:
    """Return what `verify` finds, with `vectors` too; unless rows are `counted` yet, but for counts."""
    context = graph.context()
    found = await verify(
        KNOWLEDGE_GRAPH,
        write=context.write,
        target=context.target,
        vectors=context.vectors if vectors else None,
        embedding=context.embedding.name,
    )
    return [
        str(relation)
        for relation in found.relations
        if (relation.damaged or relation.problem) and (counted or relation.kind is not RelationKind.STATS)
    ]
