"""Takeover of a graph for operators: by its map, audited."""

from syncline.control.audit import Actor
from syncline.control.services import Services
from syncline.messages.operator import TakeOverGraphInput
from syncline.messages.takeover import Takeover
from syncline.operator.maps import map_of, not_compared
from syncline.operator.second_model import main_vectors
from syncline.verify.takeover import take_over
from syncline.verify.tally import Heartbeater

__all__ = ["take_over_graph"]


async def take_over_graph(
    services: Services, request: TakeOverGraphInput, *, actor: Actor | None, beat: Heartbeater
) -> Takeover:
    """Compare a filled target with what a first sync would write; for an `actor`, prepare that.

    Raise GraphNotFound, and what `take_over` raises. What an actor prepares is audited; a refusal is not.
    """
    graph = await services.graphs.get(request.graph)
    graph_map = await map_of(services, graph)
    target = services.target_schema(graph)
    vectors, generations = await main_vectors(services, graph)
    with graph_map.finding():
        found = await take_over(
            graph_map.schema_map,
            graph=graph.slug,
            write=services.write_schema(graph),
            target=target,
            vectors=vectors if request.vectors else None,
            embedding=await services.vectors_made_with(graph, generations.main)
            if request.vectors
            else services.embedding.name,
            keys=request.keys,
            delete_extra=request.delete_extra,
            keep=request.keep_vectors,
            actor=actor,
            beat=beat,
        )
    left_out = await not_compared(target, graph_map, found.found)
    found = found.model_copy(update={"found": found.found.model_copy(update={"not_compared": left_out})})
    if actor is not None and not found.refusals:
        await services.graphs.audit(graph, "take-over", actor)
    return found
