"""What workers tell about themselves, as commands ask for it."""

from typing import TYPE_CHECKING, Final

from syncline.cli.operators import run
from syncline.cli.output import one_line, print_warning

if TYPE_CHECKING:
    from syncline.control.graphs import Graph
    from syncline.operator.fleet import Fleet

__all__ = ["describe_fleet", "warn_of_missing_providers"]

_SECONDS: Final = 10.0
_INSTEAD: Final = {
    "fallback": "the built-in engine syncs the graph",
    "hold": "the graph is held and nothing syncs it",
    "fail": "its runs fail",
}


def describe_fleet(seconds: float) -> "Fleet":
    """Return workers, providers and the graphs that name them, as a worker answers within so many seconds."""
    return run(_described(seconds))


def warn_of_missing_providers(graph: "Graph") -> None:
    """Warn on stderr of each provider that the graph's composition names and no worker has."""
    from syncline import names
    from syncline.control.composition import parse_composition
    from syncline.errors import SynclineError

    named = [
        (kind, entry, is_shadow)
        for kind, entry, is_shadow in parse_composition(graph.slug, graph.composition).declared()
        if (kind, entry.provider) != ("sync", names.DEFAULT_PROVIDER)
    ]
    if not named:
        return
    try:
        fleet = describe_fleet(_SECONDS)
    except SynclineError as error:
        print_warning(one_line(f"Whether a worker has its provider is not known: {error}"))
        return
    known = {(use.kind, use.id) for use in fleet.providers if use.installed}
    for kind, entry, is_shadow in named:
        if (kind, entry.provider) in known:
            continue
        instead = "nothing answers for it"
        if kind == "sync":
            instead = "its shadow waits" if is_shadow else _INSTEAD[entry.on_missing or "fallback"]
        print_warning(
            one_line(
                f"No worker has {kind} provider '{entry.provider}' of graph '{graph.slug}'. Until one does, "
                f"{instead}. `syncline providers` lists what workers have; `syncline provider check`, where "
                "a worker is installed, says why one lacks it."
            )
        )


async def _described(seconds: float) -> "Fleet":
    from uuid import uuid4

    from syncline import names
    from syncline.cli.target import connect_temporal, find_task_queue
    from syncline.operator.fleet import Fleet
    from syncline.temporal.run import execute_and_wait

    client = await connect_temporal(prepare=False)
    return await execute_and_wait(
        client,
        names.DESCRIBE_FLEET,
        Fleet,
        workflow_id=f"describe-fleet/{uuid4().hex[:8]}",
        task_queue=find_task_queue(),
        seconds=seconds,
        summary="Describe the workers and their providers",
    )
