"""Verification of one side of a graph: the graph, or its shadow, by the map that this worker knows of it."""

from collections.abc import Collection

from syncline.control.audit import Actor
from syncline.control.graphs import Graph
from syncline.control.services import Services
from syncline.messages.verification import Verification
from syncline.operator.maps import GraphMap, not_compared
from syncline.operator.second_model import main_vectors, second_vectors
from syncline.verify import verify
from syncline.verify.tally import Heartbeater

__all__ = ["verify_side"]


async def verify_side(
    services: Services,
    graph: Graph,
    known: GraphMap,
    *,
    shadow: bool = False,
    tables: Collection[str] | None = None,
    keys: int = 100,
    vectors: bool = True,
    repair: Actor | None = None,
    beat: Heartbeater | None = None,
) -> Verification:
    """Compare a graph, or its shadow, with the write-db, and its vectors with its rows.

    The result names what was left out because its tables are unknown here. With an actor, what differs is
    queued for the next cycle. Raise InputInvalid, as `verify` does.
    """
    target = services.target_schema(graph, shadow=shadow)
    actor = repair or Actor()
    points, generations = await main_vectors(services, graph, shadow=shadow)
    with known.finding():
        found = await verify(
            known.schema_map,
            write=services.write_schema(graph),
            target=target,
            vectors=points if vectors else None,
            embedding=await services.vectors_made_with(graph, generations.main)
            if vectors
            else services.embedding.name,
            second=await second_vectors(services, graph, points, generations) if vectors else None,
            tables=tables,
            keys=keys,
            repair=repair is not None,
            who=actor.who,
            why=actor.why,
            run_id=actor.run_id,
            starter=actor.starter,
            beat=beat,
        )
    return found.model_copy(update={"not_compared": await not_compared(target, known, found)})
