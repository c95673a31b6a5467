"""Rebuilding a graph: its provider makes a second generation, which readers are led to once it is verified.

The second generation is a shadow of the same provider: it has a schema and collections of its own, and its
cycles follow the graph's. Each verb is a sequence of steps; after each, cycles and readers continue, and the
verb can be run again: it does what is left. Whether readers see the new generation follows from the graph's
record, which the switch changes in the transaction that swaps the schemas where both are in one database.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Final, Protocol

from syncline.control.audit import Actor
from syncline.control.composition import own_provider, parse_composition
from syncline.control.graphs import Graph, GraphChanges
from syncline.control.services import Services
from syncline.messages.rebuild import ChangeRebuildInput, RebuildAction, RebuildStatus
from syncline.messages.verification import Verification
from syncline.operator.maps import GraphMap
from syncline.operator.rebuild_state import (
    LEFT_BEHIND,
    GraphRebuild,
    describe_rebuild,
    left_behind,
    obstacles,
    read_rebuild,
    unfinished,
)
from syncline.operator.verifying import verify_side
from syncline.run_text import format_seconds
from syncline.shadow.lag import behind_live
from syncline.shadow.prepare import drop_shadow, is_made, prepare_shadow
from syncline.shadow.promote import swap_with_shadow
from syncline.shadow.readers import lead_readers
from syncline.verify.tally import Heartbeater

__all__ = ["ShadowRuns", "change_rebuild", "drop", "rollback", "start", "switch"]

_PATIENCE: Final = 60.0
"""Seconds for which a step waits until the generation that readers do not see has what they see."""
_AGAIN: Final = 0.5
_KEPT: Final = 7 * 86_400
"""Seconds for which the generation before is to be kept, if nothing else is said."""


class ShadowRuns(Protocol):
    """The runs of a graph's shadow."""

    async def start(self) -> None:
        """Start one unless one is open."""

    async def stop(self) -> None:
        """Have the open one end, if there is one."""


async def change_rebuild(
    services: Services,
    graph: Graph,
    known: GraphMap,
    request: ChangeRebuildInput,
    *,
    actor: Actor,
    runs: ShadowRuns,
    beat: Heartbeater | None = None,
) -> RebuildStatus:
    """Do what of a step is left to do; return what was done, and the state after it.

    Raise RebuildRefused if this worker does not know the map of the graph's provider.
    """
    verbs: Mapping[RebuildAction, Callable[..., AsyncIterator[str]]] = {
        "start": partial(start, rows_per_second=request.rows_per_second),
        "switch": partial(switch, anyway=request.anyway, keep_seconds=request.keep_seconds, beat=beat),
        "rollback": partial(rollback, anyway=request.anyway),
        "drop": partial(drop, anyway=request.anyway),
    }
    if known.unknown is not None:
        # Another map would lead readers to other collections, and drop those.
        found = await read_rebuild(services, graph, known)
        raise found.refused(request.action, known.unknown.rstrip("."), found.elsewhere)
    if request.action in ("switch", "rollback"):
        # A promotion asks for both: before what may take hours, not after it.
        actor.model_copy(update={"why": actor.why or request.action}).required(request.action)
    did = [done async for done in verbs[request.action](services, graph, known, actor=actor, runs=runs)]
    graph = await services.graphs.get(graph.id)
    return await describe_rebuild(await read_rebuild(services, graph, known), did=did)


async def start(
    services: Services,
    graph: Graph,
    known: GraphMap,
    *,
    actor: Actor,
    runs: ShadowRuns,
    rows_per_second: int | None = None,
) -> AsyncIterator[str]:
    """Start a second generation, complete a start, or change its pace; yield what was done, after each step.

    Raise RebuildRefused, before anything is done, if something is in the way.
    """
    found = await read_rebuild(services, graph, known)
    record = found.record
    if record is None:
        problems = await obstacles(found)
        if problems:
            fixes = dict.fromkeys(fix for _, fix in problems)
            raise found.refused("start", "; ".join(problem for problem, _ in problems), " ".join(fixes))
        await services.graphs.audit(graph, "rebuild-start", actor)
    elif found.switched:
        fix = f"`syncline rebuild drop {graph.slug}` ends it; then another one can be started."
        raise found.refused("start", "readers see what was rebuilt already", fix)
    else:
        await _may_begin(found, "start")
    pace = rows_per_second or None
    if record is None or (rows_per_second is not None and record.rows_per_second != pace):
        await services.rebuilds.put(graph, rows_per_second=pace)
        yield f"A rebuild is recorded, {'without a limit' if pace is None else f'at {pace:,} rows a second'}."
    if not graph.shadowed:
        declared = {**graph.composition, "shadow": own_provider(graph.composition)}
        graph = await services.graphs.update(graph.id, GraphChanges(composition=declared), actor=actor)
        yield f"Cycles of {graph.shadow_ref.slug} follow the graph's."
    place = found.other
    made = await is_made(place)
    entry = parse_composition(graph.slug, graph.composition).entry("sync", shadow=True)
    if entry is None or not graph.rebuilt:
        raise _another(found, "start")
    await prepare_shadow(services, graph, entry.provider)
    if not made:
        yield f"Schema '{place.schema}' is made."
    async for done in found.dependents.complete():
        yield done
    led = await lead_readers(services, graph, known.schema_map)
    if led:
        yield f"Readers can query {', '.join(led)}."
    await runs.start()


async def switch(
    services: Services,
    graph: Graph,
    known: GraphMap,
    *,
    actor: Actor,
    runs: ShadowRuns,
    anyway: bool = False,
    keep_seconds: int | None = None,
    patience: float = _PATIENCE,
    beat: Heartbeater | None = None,
) -> AsyncIterator[str]:
    """Verify the second generation, and lead readers to it; yield what was done, after each step.

    Raise RebuildRefused, unless `anyway`, if it is not equal to what the write-db has, or something of others
    would stay behind; ShadowInvalid if that, or that it lacks what the live one has, turns out at the swap.
    """
    found = await read_rebuild(services, graph, known)
    _required(found, "switch")
    begun = await _may_begin(found, "switch")
    if not found.switched and not begun:
        async for done in _prepared(found, "switch", anyway=anyway):
            yield done
        if not anyway:
            await _caught_up(found, runs, patience=patience)
            yield await _verified(found, beat)
    if keep_seconds is not None or not (found.switched or begun):
        keep = _KEPT if keep_seconds is None else keep_seconds
        if found.switched:
            await services.graphs.audit(graph, "rebuild-keep", actor, fields=[format_seconds(keep)])
        await services.rebuilds.keep(graph.id, keep)
        yield f"The generation before is kept for {format_seconds(keep)}."
    async for done in _swapped(
        found, "switch", to=True, actor=actor, runs=runs, anyway=anyway, patience=patience
    ):
        yield done


async def rollback(
    services: Services,
    graph: Graph,
    known: GraphMap,
    *,
    actor: Actor,
    runs: ShadowRuns,
    anyway: bool = False,
    patience: float = _PATIENCE,
) -> AsyncIterator[str]:
    """Lead readers back to the generation before, which was kept in step; yield what was done.

    Raise RebuildRefused while a switch is to be finished, or, unless `anyway`, if something of others would
    stay behind; ShadowInvalid if that, or that it lacks what the live one has, turns out at the swap.
    """
    found = await read_rebuild(services, graph, known)
    _required(found, "rollback")
    if not await _may_begin(found, "rollback") and found.switched:
        async for done in _prepared(found, "rollback", anyway=anyway):
            yield done
    async for done in _swapped(
        found, "rollback", to=False, actor=actor, runs=runs, anyway=anyway, patience=patience
    ):
        yield done


async def drop(
    services: Services, graph: Graph, known: GraphMap, *, actor: Actor, runs: ShadowRuns, anyway: bool = False
) -> AsyncIterator[str]:
    """Drop the generation that readers do not see, with its collections; yield what was done.

    Raise RebuildRefused if there is none, or others have something in its schema, or bound to it.
    """
    found = await read_rebuild(services, graph, known)
    _required(found, "drop")
    await _may_begin(found, "drop")
    place = found.other
    left = await found.left.left() if await is_made(place) else ()
    if left and not anyway:
        fix = "Move or drop that first; `--anyway` drops it too."
        raise found.refused(
            "drop", f"others have something in schema '{place.schema}': {'; '.join(left)}", fix
        )
    await services.graphs.audit(graph, "rebuild-drop", actor, fields=[place.schema])
    # Where a switch was interrupted, readers of the vector store still look at what is to be dropped.
    led = await lead_readers(services, graph, known.schema_map)
    if led:
        yield f"{', '.join(led)} lead to the generation that stays."
    if graph.shadowed:
        declared = {key: value for key, value in graph.composition.items() if key != "shadow"}
        graph = await services.graphs.update(graph.id, GraphChanges(composition=declared), actor=actor)
        yield "No cycles follow the graph's any more."
    await runs.stop()
    await drop_shadow(services, graph, known.schema_map)
    yield f"Schema '{place.schema}' and its collections are dropped."
    await services.rebuilds.remove(graph.id)


def _required(found: GraphRebuild, action: str) -> None:
    if found.record is None:
        fix = f"`syncline rebuild start {found.graph.slug}` starts one."
        raise found.refused(action, "there is no rebuild", fix)


async def _may_begin(found: GraphRebuild, action: RebuildAction) -> bool:
    """Return whether this step has swapped the schemas and not the record; refuse if another one has."""
    begun = await unfinished(found)
    if begun not in (None, action):
        fix = f"Run `syncline rebuild {begun} {found.graph.slug}` again, then this."
        raise found.refused(
            action, f"a {begun} was interrupted: the schemas are swapped and the record is not", fix
        )
    return begun is not None


def _another(found: GraphRebuild, action: str) -> Exception:
    fix = f"`syncline rebuild drop {found.graph.slug}` gives it up; then start again."
    return found.refused(
        action, "its composition has changed since the start, and what was rebuilt is of that", fix
    )


async def _prepared(found: GraphRebuild, action: str, *, anyway: bool) -> AsyncIterator[str]:
    """Give the other generation what the live one has got since: indexes, constraints, comments and such.

    Refused, before what may take hours, if something of others cannot come along.
    """
    graph = found.graph
    if not graph.shadowed or not await is_made(found.other):
        fix = f"Run `syncline rebuild start {graph.slug}` again."
        raise found.refused(action, "its start was interrupted", fix)
    if not graph.rebuilt:
        raise _another(found, action)
    left = () if anyway else await left_behind(found)
    if left:
        raise found.refused(action, "; ".join(left), f"{LEFT_BEHIND} `--anyway` leaves it behind.")
    async for done in found.dependents.complete():
        yield done
    await found.dependents.analyze()


async def _caught_up(found: GraphRebuild, runs: ShadowRuns, *, patience: float) -> None:
    """Return once the second generation has what the live one has; raise RebuildRefused if it never does."""
    deadline = time.monotonic() + patience
    while behind := await behind_live(found.services, found.graph, found.known.schema_map):
        if time.monotonic() >= deadline:
            fix = f"Wait for it (`syncline rebuild status {found.graph.slug}`), or give --anyway."
            raise found.refused("switch", "; ".join(behind), fix)
        await runs.start()
        await asyncio.sleep(_AGAIN)


async def _verified(found: GraphRebuild, beat: Heartbeater | None) -> str:
    """Compare the second generation with the write-db; return the outcome, or raise RebuildRefused."""
    graph = found.graph
    verification = await verify_side(found.services, graph, found.known, shadow=True, keys=0, beat=beat)
    problems = _unequal(verification)
    if problems:
        fix = f"`syncline verify {graph.shadow_ref.slug}` lists it, and repairs it; --anyway goes over it."
        raise found.refused("switch", f"what was rebuilt is not equal: {'; '.join(problems)}", fix)
    return f"Verified: {verification.sentence()}."


def _unequal(found: Verification) -> list[str]:
    damaged = [
        f"{relation.name} ({relation.kind.value}): {relation.damaged:,} damaged"
        for relation in found.relations
        if relation.damaged
    ]
    problems = [
        f"{relation.name} ({relation.kind.value}): {relation.problem}"
        for relation in found.relations
        if relation.problem is not None
    ]
    rescan = ["its cursors are of another write-db, so it will read all rows again"] if found.rescan else []
    return [*damaged, *problems, *found.not_compared, *found.owed, *rescan]


async def _swapped(
    found: GraphRebuild,
    action: str,
    *,
    to: bool,
    actor: Actor,
    runs: ShadowRuns,
    anyway: bool,
    patience: float,
) -> AsyncIterator[str]:
    """Swap the generations unless they are (`to`: readers are to see the new one), and all that follows."""
    services, graph, known = found.services, found.graph, found.known
    if found.switched is not to:
        done = await swap_with_shadow(
            services,
            graph,
            known.schema_map,
            actor=actor.model_copy(update={"why": actor.why or f"rebuild {action}"}),
            force=anyway,
            patience=patience,
            dependents=found.dependents,
            action=f"rebuild-{action}",
            catch_up=runs.start,
        )
        for reason in done.despite:
            yield f"Although {reason}."
        yield f"Schemas and collections are swapped; readers waited {done.paused_seconds:.2f} s at most."
        graph = await services.graphs.get(graph.id)
    led = await lead_readers(services, graph, known.schema_map)
    if led:
        yield f"{', '.join(led)} lead to the generation that readers see."
    async for problem in found.dependents.validate():
        yield problem
    await runs.start()
