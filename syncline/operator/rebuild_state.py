"""The rebuild of a graph, as control plane and stores have it; and what keeps one from starting."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from syncline import names
from syncline.control.graphs import Graph
from syncline.control.rebuild_record import RebuildRecord
from syncline.control.services import Services
from syncline.errors import RebuildRefused
from syncline.messages.base import GraphStatus
from syncline.messages.rebuild import RebuildAction, RebuildState, RebuildStatus
from syncline.operator.embedding_state import read_embeddings
from syncline.operator.maps import GraphMap
from syncline.operator.second_model import generations_of
from syncline.provider import GraphSchema
from syncline.quoting import counted
from syncline.shadow.dependents import Dependents
from syncline.shadow.lag import behind_live
from syncline.shadow.prepare import is_made
from syncline.shadow.promote import cut_off
from syncline.shadow.rows_of_others import rows_of_others

__all__ = [
    "LEFT_BEHIND",
    "GraphRebuild",
    "describe_rebuild",
    "left_behind",
    "obstacles",
    "read_rebuild",
    "unfinished",
]

_NEAR: Final = 0.98
"""The part of the live rows from which on a generation counts as filled: it follows changes from then on."""


@dataclass(frozen=True, kw_only=True)
class GraphRebuild:
    """A graph and its rebuild."""

    services: Services
    graph: Graph
    known: GraphMap
    record: RebuildRecord | None

    @property
    def switched(self) -> bool:
        """Whether readers see what was rebuilt."""
        return self.record is not None and self.record.switched(self.graph)

    @property
    def live(self) -> GraphSchema:
        """The schema that readers see."""
        return self.services.target_schema(self.graph)

    @property
    def other(self) -> GraphSchema:
        """The one that they do not see."""
        return self.services.target_schema(self.graph, shadow=True)

    @property
    def dependents(self) -> Dependents:
        """What others have in the schema that readers see."""
        return Dependents(self.live, self.other.schema, self.known.schema_map)

    @property
    def left(self) -> Dependents:
        """What others have in the other schema."""
        return Dependents(self.other, self.live.schema, self.known.schema_map)

    @property
    def elsewhere(self) -> str:
        """The fix where this worker does not know the map of the graph's provider."""
        queue = names.operations_task_queue(self.services.settings.task_queue)
        return (
            f"Install the provider, with its `schema_map`, in all workers of task queue '{queue}', or give "
            "SYNCLINE_TASK_QUEUE one whose workers have it: `syncline providers` tells which have."
        )

    def refused(self, action: str, problem: str, fix: str) -> RebuildRefused:
        """Return the refusal of a step."""
        return RebuildRefused(self.graph.slug, action, problem, fix=fix)


async def read_rebuild(services: Services, graph: Graph, known: GraphMap) -> GraphRebuild:
    """Read it; raise StoreError."""
    record = await services.rebuilds.get(graph.id)
    return GraphRebuild(services=services, graph=graph, known=known, record=record)


async def obstacles(found: GraphRebuild) -> Sequence[tuple[str, str]]:
    """Return why a rebuild cannot be started, each with its fix."""
    graph, slug = found.graph, found.graph.slug
    reasons: list[tuple[str, str]] = []
    if graph.status is GraphStatus.ARCHIVED:
        reasons.append(
            ("the graph is archived, so nothing would fill it", f"`syncline graph resume {slug}`.")
        )
    live, other = found.live, found.other
    drop = (
        f"Promote it (`syncline provider promote {slug}`), or drop it by `syncline graph set {slug} "
        "--drop-shadow` with a `--composition` that declares none; then start again."
    )
    if graph.shadowed:
        reasons.append(("the graph has a shadow", drop))
    elif await is_made(other):
        reasons.append((f"schema '{other.schema}' is there, of a shadow", drop))
    if not await is_made(live):
        reasons.append(("it has never been synced", f"`syncline sync {slug}`."))
        return reasons
    if (await generations_of(live)).second is not None:
        reasons.append(("its embedding is being changed", f"`syncline embedding status {slug}`."))
    if found.known.unknown is not None:
        # What follows looks at the tables of the map.
        fix = f"{found.elsewhere} Or compare a shadow of it yourself (docs/shadow.md)."
        return [*reasons, (f"it could not be verified. {found.known.unknown.rstrip('.')}", fix)]
    reasons += [
        (
            f"ids of '{table.name}' would be others: they are assigned, or taken over from the target",
            "Let ids come from the source (docs/maps.md#keys-and-ids).",
        )
        for table in found.known.schema_map
        if table.keeps_ids
    ]
    reasons += [(problem, LEFT_BEHIND) for problem in await left_behind(found)]
    return reasons


LEFT_BEHIND: Final = (
    "Drop what is bound to the tables before the switch, and make it again after it; give values and rows of "
    "others tables of their own; let the workers' role be a member of the role that owns the rest. "
    "docs/rebuild.md lists what comes along."
)


async def left_behind(found: GraphRebuild) -> Sequence[str]:
    """Return what others have in the live schema that would not come along, in sentences."""
    of_others = await rows_of_others(found.live, found.other, found.known.schema_map)
    return [*await found.dependents.obstacles(), *of_others]


async def unfinished(found: GraphRebuild) -> RebuildAction | None:
    """Return the step that has swapped the schemas and not the record: until it is run again, cycles wait."""
    if not await cut_off(found.services, found.graph):
        return None
    return "rollback" if found.switched else "switch"


async def describe_rebuild(found: GraphRebuild, *, did: Sequence[str] = ()) -> RebuildStatus:
    """Return how far the rebuild is, and what to do next."""
    slug, graph, record = found.graph.slug, found.graph, found.record
    if record is None:
        problems = [problem for problem, _ in await obstacles(found)]
        return RebuildStatus(
            graph=slug,
            state="none",
            obstacles=tuple(problems),
            did=tuple(did),
            next="There is no rebuild, and something is in the way of one."
            if problems
            else "There is no rebuild.",
            command=None if problems else f"syncline rebuild start {slug}",
        )
    other = found.other
    status = RebuildStatus(
        graph=slug,
        state="interrupted",
        started_at=record.started_at,
        rows_per_second=record.rows_per_second,
        kept_until=record.kept_until if found.switched else None,
        schema_name=other.schema,
        did=tuple(did),
    )
    made = await is_made(other)
    if not graph.rebuilt or not made:
        begun = "A step was interrupted, or the graph's composition has changed since its start."
        starting = not made and not found.switched and (graph.rebuilt or not graph.shadowed)
        command = f"syncline rebuild {'start' if starting else 'drop'} {slug}"
        return status.model_copy(update={"next": begun, "command": command})
    verb = await unfinished(found)
    if verb is not None:
        begun = "The schemas are swapped, and the record is not: cycles wait until the step is run again."
        return status.model_copy(update={"next": begun, "command": f"syncline rebuild {verb} {slug}"})
    if found.known.unknown is not None:
        unknown = {"state": "switched" if found.switched else "filling", "obstacles": (found.known.unknown,)}
        return status.model_copy(update={**unknown, "next": found.elsewhere})
    behind = await behind_live(found.services, graph, found.known.schema_map)
    live_rows, rows = await found.dependents.rows()
    left = await left_behind(found)
    state, sentence, command = _next(found, record, behind, rows=rows, live_rows=live_rows)
    if left and not found.switched:
        sentence = f"{sentence} A switch leaves something of others behind, and is refused. {LEFT_BEHIND}"
    return status.model_copy(
        update={
            "state": state,
            "rows": rows,
            "live_rows": live_rows,
            "behind": tuple(behind),
            "obstacles": tuple(left),
            "aliases": tuple((await read_embeddings(found.services, graph, found.known.schema_map)).aliases),
            "next": sentence,
            "command": f"syncline rebuild {command} {slug}",
        }
    )


def _next(
    found: GraphRebuild, record: RebuildRecord, behind: Sequence[str], *, rows: int, live_rows: int
) -> tuple[RebuildState, str, str]:
    if record.kept_too_long(found.graph):
        kept = "The generation before is there for longer than was asked: `drop` ends it, and the way back."
        return "switched", kept, "drop"
    if found.switched:
        kept = "Readers see what was rebuilt. `rollback` leads them back; `drop` ends the generation before."
        return "switched", kept, "drop"
    if behind and (rows == 0 or rows < _NEAR * live_rows):
        runs = f"`syncline status {found.graph.shadow_ref.slug}` shows its runs."
        filled = f"It fills: about {rows:,} of {counted(live_rows, 'row')} are there. {runs}"
        return "filling", filled, "status"
    return "ready", "It has what readers see, or nearly: `switch` verifies it and leads them to it.", "switch"
