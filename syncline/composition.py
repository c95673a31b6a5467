"""What a graph declares to be served by, and resolving it to a provider, or to a reason why there is none.

A fallback is an answer; a failure is not. Only three things lead to a fallback: no graph was named, the graph
declares no provider, no worker that is there has the one it declares. A control database that is down, an
unknown graph and an invalid composition raise, because a guess would sync a graph with the wrong engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from syncline.errors import CompositionInvalid
from syncline.logs import get_log
from syncline.messages import FallbackReason
from syncline.provider import SyncProvider, options_model_of

if TYPE_CHECKING:
    from syncline.fleet import InstalledProvider
    from syncline.graphs import Graph
    from syncline.services import Services

__all__ = [
    "Composition",
    "ProviderEntry",
    "Resolved",
    "parse_composition",
    "resolve_provider",
    "resolve_sync_provider",
]

ProviderT = TypeVar("ProviderT")


class ProviderEntry(BaseModel):
    """Which provider serves one kind of work for a graph."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    provider: str = Field(min_length=1)
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Validated by the provider's own options model when the provider is resolved."""
    on_missing: Literal["fallback", "hold", "fail"] = "fallback"
    """When no worker has it: use the built-in engine, sync nothing until one has it, or fail."""


class Composition(BaseModel):
    """Kind of provider -> what serves it. Only `sync` is wired so far; the other kinds are reserved."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sync: ProviderEntry | None = None
    fact_decomposition: ProviderEntry | None = None
    definition: ProviderEntry | None = None
    source_cache: ProviderEntry | None = None
    source_contribution: ProviderEntry | None = None
    dimensions: ProviderEntry | None = None
    relations: ProviderEntry | None = None


@dataclass(frozen=True, kw_only=True)
class Resolved(Generic[ProviderT]):
    """A provider of this worker, or one that another worker has, or the reason why there is none."""

    graph: "Graph | None"
    """None when no graph was named."""
    provider: ProviderT | None = None
    """Not initialized yet: `Registry.initialized` does that."""
    routed: bool = False
    """Whether its cycles go to the task queue of those who have it."""
    elsewhere: "InstalledProvider | None" = None
    """A routed provider that this worker lacks. Its options are validated where it is."""
    entry: ProviderEntry | None = None
    """What the composition declares, when it declares something."""
    distribution: str | None = None
    options: BaseModel | None = None
    """The entry's options as the provider's options model; None without a provider."""
    reason: FallbackReason | None = None
    detail: str = ""
    """One sentence for a person."""


def parse_composition(slug: str, raw: Mapping[str, JsonValue]) -> Composition:
    """Return the composition of graph `slug`, or raise CompositionInvalid naming the graph and the key."""
    try:
        return Composition.model_validate(dict(raw))
    except ValidationError as error:
        raise _invalid(slug, "", error) from None


async def resolve_provider(
    kind: Literal["sync"], services: "Services | None", graph_id: str | UUID | None
) -> Resolved[SyncProvider]:
    """Return who serves `kind` for the graph (slug or id), or why nobody does.

    This worker's own registry answers first; the other workers are looked up only if it does not know. Raise
    StoreError, GraphNotFound, GraphInvalid or CompositionInvalid when it cannot be known.
    """
    if services is None:
        raise RuntimeError(
            "A provider cannot be resolved without services. Open them at the start of the process: "
            "`async with Services.open(settings, registry=registry) as services`."
        )
    if graph_id is None:
        return Resolved(
            graph=None,
            reason=FallbackReason.NO_GRAPH_CONTEXT,
            detail="No graph was named, so the built-in engine serves the default graph.",
        )
    graph = await services.graphs.get(graph_id)
    entry = getattr(parse_composition(graph.slug, graph.composition), kind)
    if not isinstance(entry, ProviderEntry):
        return Resolved(
            graph=graph,
            reason=FallbackReason.NOT_DECLARED,
            detail=f"The composition of graph '{graph.slug}' declares no {kind} provider.",
        )
    registered = services.registry.get(kind, entry.provider)
    if registered is None:
        # Without the table of workers (`syncline migrate`) this raises: nobody could know who is there, and
        # the wrong engine might sync a graph whose own is at work next door.
        task_queue = services.settings.task_queue
        elsewhere = await services.workers.routed(kind, entry.provider, task_queue=task_queue)
        if elsewhere is None:
            return _not_installed(kind, services, graph, entry)
        return Resolved(
            graph=graph,
            elsewhere=elsewhere,
            routed=True,
            entry=entry,
            distribution=elsewhere.distribution,
            detail=f"Provider '{entry.provider}' of {elsewhere.distribution}, in another worker.",
        )
    try:
        options = options_model_of(registered.provider).model_validate(entry.options)
    except ValidationError as error:
        raise _invalid(graph.slug, f"{kind}.options", error) from None
    return Resolved(
        graph=graph,
        provider=registered.provider,
        routed=registered.routed,
        entry=entry,
        distribution=registered.distribution,
        options=options,
        detail=f"Provider '{entry.provider}' of {registered.distribution}.",
    )


async def resolve_sync_provider(
    services: "Services | None", graph_id: str | UUID | None
) -> Resolved[SyncProvider]:
    """Return who syncs the graph, or why no provider does; raise as `resolve_provider` does."""
    return await resolve_provider("sync", services, graph_id)


def _not_installed(
    kind: Literal["sync"], services: "Services", graph: "Graph", entry: ProviderEntry
) -> Resolved[SyncProvider]:
    registry = services.registry
    log = get_log()
    # Someone should hear of it, once: a graph that syncs every minute would otherwise page all night.
    tell = log.warning if registry.first_miss(kind, graph.id, entry.provider) else log.debug
    known = registry.known(kind)
    tell("provider is not installed", graph=graph.slug, kind=kind, provider=entry.provider, known=list(known))
    return Resolved(
        graph=graph,
        entry=entry,
        reason=FallbackReason.NOT_INSTALLED,
        detail=(
            f"No installed plugin contributes {kind} provider '{entry.provider}' "
            f"(installed: {', '.join(known) or 'none'})."
        ),
    )


def _invalid(slug: str, under: str, error: ValidationError) -> CompositionInvalid:
    """Return the first problem by its dotted key. Inputs stay out of it: options may hold secrets."""
    first = error.errors(include_input=False, include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        problem = "unknown key"
        if not under and len(path) == 1:
            problem += f"; known are {', '.join(Composition.model_fields)}"
    return CompositionInvalid(slug, ".".join([under, *path] if under else path), problem)
