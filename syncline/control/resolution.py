"""Provider resolution: from a graph's composition to a provider, or to the reason why there is none.

Fallback has only three reasons: no graph was named, the graph declares no provider, or no live worker has the
declared one. An unavailable control database, an unknown graph and an invalid composition raise, because a
guess would sync a graph with the wrong engine.
"""

from dataclasses import dataclass, replace
from typing import Generic, Literal, Protocol, TypeVar, overload
from uuid import UUID

from pydantic import BaseModel, ValidationError

from syncline.control.composition import ProviderEntry, composition_invalid, parse_composition
from syncline.control.graphs import Graph, GraphRepository
from syncline.control.maps import MapOptions, MapRepository
from syncline.control.workers import InstalledProvider, WorkerRepository
from syncline.errors import CompositionInvalid, ProviderGone, ProviderMissing, ShadowInvalid
from syncline.logs import get_log
from syncline.messages.provider_state import FallbackReason, UsedMap
from syncline.provider import (
    FactDecompositionProvider,
    Provider,
    ProviderKind,
    SyncProvider,
    options_model_of,
)
from syncline.raised import place
from syncline.registry import Registered, Registry
from syncline.settings import Settings

__all__ = [
    "Resolved",
    "resolve_fact_decomposition_provider",
    "resolve_provider",
    "resolve_sync_provider",
    "resolved_before",
]

ProviderT = TypeVar("ProviderT", bound=Provider)
ProviderT_co = TypeVar("ProviderT_co", bound=Provider, covariant=True)


class ResolutionServices(Protocol):
    """The part of `syncline.services.Services` that resolution needs."""

    @property
    def settings(self) -> Settings:
        """Task queue and deployment version of this worker."""

    @property
    def registry(self) -> Registry:
        """The providers registered in this worker."""

    @property
    def graphs(self) -> GraphRepository:
        """The graph records."""

    @property
    def maps(self) -> MapRepository:
        """The stored maps."""

    @property
    def workers(self) -> WorkerRepository:
        """The registered workers and their providers."""


@dataclass(frozen=True, kw_only=True)
class Resolved(Generic[ProviderT_co]):
    """A provider of this worker, one of another worker, or the reason why there is none."""

    graph: Graph | None
    """None if no graph was named."""
    provider: ProviderT_co | None = None
    """Not yet initialized: see `Registry.initialized`."""
    routed: bool = False
    """Whether its cycles go to the provider's task queue."""
    elsewhere: InstalledProvider | None = None
    """A routed provider that only other workers have."""
    entry: ProviderEntry | None = None
    """The entry of the composition, if it has one."""
    key: str = "sync"
    """The entry's key in the composition."""
    distribution: str | None = None
    options: BaseModel | None = None
    """The entry's options as the provider's options model; None without a provider, and for a routed sync
    provider, whose options are `validated` where its cycles run."""
    map: UsedMap | None = None
    """The stored map that the options name, at its version of now."""
    reason: FallbackReason | None = None
    detail: str = ""
    """One sentence for operators."""

    def answer(self) -> ProviderT_co | None:
        """Return the provider, or None if the caller is to use its built-in.

        Raise ProviderMissing, or ProviderGone, which an activity retries, if `on_missing` is not `fallback`.
        """
        if self.provider is None and self.entry is not None and self.graph is not None:
            if self.entry.on_missing == "fail":
                raise ProviderMissing(self.graph.slug, self.entry.provider, why=self.detail)
            if self.entry.on_missing == "hold":
                raise ProviderGone(self.graph.slug, self.entry.provider)
        return self.provider

    def validated(self) -> BaseModel:
        """Return the validated options of a provider of this worker, or raise CompositionInvalid.

        It calls the provider's validators, which may block or raise anything: call it where the provider is.
        """
        if self.options is not None:
            return self.options
        if self.graph is None or self.provider is None or self.entry is None:
            raise RuntimeError("there are no options to validate without a provider")
        slug, key = self.graph.slug, f"{self.key}.options"
        by = f"options_model of distribution '{self.distribution}'"
        try:
            return options_model_of(self.provider).model_validate(self.entry.options)
        except ValidationError as error:
            raise composition_invalid(slug, key, error, by=by) from None
        except (Exception, SystemExit) as error:
            where = place(error)
            raised = type(error).__name__ + (f" at {where}" if where else "")
            problem = f"{by} raised {raised}; it must reject options by a ValueError"
            # Its message may quote an option, and so may a logged cause.
            raise CompositionInvalid(slug, key, problem) from None


@overload
async def resolve_provider(
    kind: Literal["sync"],
    services: ResolutionServices | None,
    graph_id: str | UUID | None,
    *,
    shadow: bool = False,
) -> Resolved[SyncProvider]: ...


@overload
async def resolve_provider(
    kind: Literal["fact_decomposition"], services: ResolutionServices | None, graph_id: str | UUID | None
) -> Resolved[FactDecompositionProvider]: ...


@overload
async def resolve_provider(
    kind: ProviderKind, services: ResolutionServices | None, graph_id: str | UUID | None
) -> Resolved[Provider]: ...


async def resolve_provider(
    kind: ProviderKind,
    services: ResolutionServices | None,
    graph_id: str | UUID | None,
    *,
    shadow: bool = False,
) -> Resolved[Provider]:
    """Return the provider of `kind` for the graph (slug or id), or why there is none.

    With `shadow`, the provider of the graph's shadow. This worker's registry is searched first; for sync,
    then the registered workers. Options are validated, except those of a routed sync provider: call
    `Resolved.validated` where it runs. Raise StoreError, GraphNotFound, GraphInvalid or CompositionInvalid if
    it cannot be resolved, ShadowInvalid if the graph declares no shadow.
    """
    if services is None:
        raise RuntimeError(
            "A provider cannot be resolved without services. Open them at the start of the process: "
            "`async with Services.open(settings, registry=registry) as services`."
        )
    if graph_id is None:
        serves = "the built-in engine serves the default graph" if kind == "sync" else "no provider is asked"
        return Resolved(
            graph=None,
            reason=FallbackReason.NO_GRAPH_CONTEXT,
            detail=f"No graph was named, so {serves}.",
        )
    named: UsedMap | None = None
    if kind == "sync":
        graph, named = await services.graphs.get_with_map(graph_id, shadow=shadow)
    else:
        graph = await services.graphs.get(graph_id)
    entry = parse_composition(graph.slug, graph.composition).entry(kind, shadow=shadow)
    if entry is None and shadow:
        raise ShadowInvalid(graph.slug, "its composition declares no `shadow`")
    if entry is None:
        return Resolved(
            graph=graph,
            reason=FallbackReason.NOT_DECLARED,
            detail=f"The composition of graph '{graph.slug}' declares no {kind} provider.",
        )
    registered = services.registry.get(kind, entry.provider)
    blocked = services.registry.withdrawn(kind, entry.provider)
    if registered is None and kind != "sync":
        # Providers of other kinds are only used in the process that resolves them.
        return await _not_installed(kind, services, graph, entry)
    if registered is None or blocked:
        # Without the table of workers (`syncline migrate`) this raises: running workers would be unknown, and
        # the built-in engine might sync a graph whose provider runs in another worker.
        settings = services.settings
        elsewhere = await services.workers.routed(
            kind,
            entry.provider,
            task_queue=settings.task_queue,
            deployment_version=settings.deployment_version,
        )
        if elsewhere is None:
            return await _not_installed(kind, services, graph, entry)
        return Resolved(
            graph=graph,
            elsewhere=elsewhere,
            routed=True,
            entry=entry,
            distribution=elsewhere.distribution,
            detail=f"Provider '{entry.provider}' of {elsewhere.distribution}, in another worker.",
        )
    found = _installed(registered, graph, entry, shadow=shadow)
    if kind == "sync" and found.routed:
        # Its validators are a plugin's code, and this may be the main event loop.
        return found
    options = found.validated()
    if not isinstance(options, MapOptions) or options.map is None:
        return replace(found, options=options)
    if named is None:
        unknown = await services.maps.unknown(graph.slug, found.key, options)
        if unknown is not None:
            raise unknown
    return replace(found, options=options.pinned(named), map=named)


async def resolve_sync_provider(
    services: ResolutionServices | None, graph_id: str | UUID | None, *, shadow: bool = False
) -> Resolved[SyncProvider]:
    """Return the sync provider of the graph or shadow, or why there is none; see `resolve_provider`."""
    return await resolve_provider("sync", services, graph_id, shadow=shadow)


def resolved_before(
    services: ResolutionServices, graph: Graph, *, shadow: bool = False
) -> Resolved[SyncProvider]:
    """Return the sync provider by a record that has been resolved already, without a look-up of workers.

    `entry` is None if the record declares none, `provider` if this worker lacks it.
    """
    entry = parse_composition(graph.slug, graph.composition).entry("sync", shadow=shadow)
    registered = None if entry is None else services.registry.get("sync", entry.provider)
    if entry is None or registered is None or services.registry.withdrawn("sync", entry.provider):
        return Resolved(graph=graph, entry=entry)
    return _installed(registered, graph, entry, shadow=shadow)


async def resolve_fact_decomposition_provider(
    services: ResolutionServices | None, graph_id: str | UUID | None
) -> Resolved[FactDecompositionProvider]:
    """Return the graph's fact decomposition provider, or why there is none; see `resolve_provider`."""
    return await resolve_provider("fact_decomposition", services, graph_id)


def _installed(
    registered: Registered[ProviderT], graph: Graph, entry: ProviderEntry, *, shadow: bool
) -> Resolved[ProviderT]:
    return Resolved(
        graph=graph,
        provider=registered.provider,
        routed=registered.routed,
        entry=entry,
        key="shadow" if shadow else registered.kind,
        distribution=registered.distribution,
        detail=f"Provider '{entry.provider}' of {registered.distribution}.",
    )


async def _not_installed(
    kind: ProviderKind, services: ResolutionServices, graph: Graph, entry: ProviderEntry
) -> Resolved[Provider]:
    registry = services.registry
    required = entry.on_missing in (None, "fallback") and await services.workers.required(
        kind, entry.provider
    )
    explicit = entry.on_missing is not None
    if not explicit:
        entry = entry.model_copy(update={"on_missing": "hold" if required else "fallback"})
    registered = registry.get(kind, entry.provider)
    log = get_log()
    # WARNING once: a graph that syncs every minute would otherwise page all night.
    write = log.warning if registry.first_miss(kind, graph.id, entry.provider) else log.debug
    known = registry.known(kind)
    if registered is None:
        event, listed = "provider not installed", ", ".join(known) or "none"
        detail = f"No installed plugin contributes {kind} provider '{entry.provider}' (installed: {listed})."
    else:
        event = "provider blocked, and no other worker has it"
        detail = (
            f"Provider '{entry.provider}' of {registered.distribution} blocks its event loop, and no other "
            "worker has it."
        )
    if required and explicit:
        detail += " It declares itself required, but `on_missing` is `fallback`."
        write("required provider replaced by fallback", graph=graph.slug, provider=entry.provider)
    write(event, graph=graph.slug, kind=kind, provider=entry.provider, known=list(known))
    return Resolved(graph=graph, entry=entry, reason=FallbackReason.NOT_INSTALLED, detail=detail)
