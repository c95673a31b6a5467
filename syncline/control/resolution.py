"""Resolve what a graph declares to a provider, or to a reason why there is none.

A fallback is an answer; a failure is not. Only three things lead to a fallback: no graph was named, the graph
declares no provider, no live worker has the one it declares. A control database that is down, an unknown
graph and an invalid composition raise, because a guess would sync a graph with the wrong engine.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from traceback import extract_tb
from typing import Generic, Literal, Protocol, TypeVar, overload
from uuid import UUID

from pydantic import BaseModel, ValidationError

from syncline.control.composition import ProviderEntry, composition_invalid, parse_composition
from syncline.control.graphs import Graph, GraphRepository
from syncline.control.workers import InstalledProvider, WorkerRepository
from syncline.errors import CompositionInvalid, ProviderGone, ProviderMissing, ShadowInvalid
from syncline.logs import get_log
from syncline.messages.provider_state import FallbackReason
from syncline.provider import (
    FactDecompositionProvider,
    Provider,
    ProviderKind,
    SyncProvider,
    options_model_of,
)
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
    """What resolving needs of `syncline.services.Services`."""

    @property
    def settings(self) -> Settings:
        """Task queue and deployment version of this worker."""

    @property
    def registry(self) -> Registry:
        """The providers of this worker."""

    @property
    def graphs(self) -> GraphRepository:
        """The records of the graphs."""

    @property
    def workers(self) -> WorkerRepository:
        """The workers of the deployment, and the providers that each has."""


@dataclass(frozen=True, kw_only=True)
class Resolved(Generic[ProviderT_co]):
    """A provider of this worker, or one that another worker has, or the reason why there is none."""

    graph: Graph | None
    """None when no graph was named."""
    provider: ProviderT_co | None = None
    """Not initialized yet: `Registry.initialized` does that."""
    routed: bool = False
    """Whether its cycles go to the task queue of those who have it."""
    elsewhere: InstalledProvider | None = None
    """A routed provider that this worker lacks."""
    entry: ProviderEntry | None = None
    """What the composition declares, when it declares something."""
    key: str = "sync"
    """The entry's key in the composition."""
    distribution: str | None = None
    options: BaseModel | None = None
    """The entry's options as the provider's options model; None without a provider, and for a routed sync
    provider: those are `validated` where its cycles run."""
    reason: FallbackReason | None = None
    detail: str = ""
    """One sentence for a person."""

    def answer(self) -> ProviderT_co | None:
        """Return the provider, or None if the built-in of whoever asks is to stand in for it.

        Raise ProviderMissing or ProviderGone, which an activity retries, if `on_missing` has it otherwise.
        """
        if self.provider is None and self.entry is not None and self.graph is not None:
            if self.entry.on_missing == "fail":
                raise ProviderMissing(self.graph.slug, self.entry.provider, why=self.detail)
            if self.entry.on_missing == "hold":
                raise ProviderGone(self.graph.slug, self.entry.provider)
        return self.provider

    def validated(self) -> BaseModel:
        """Return the options of the provider that is here, or raise CompositionInvalid.

        This calls the provider's validators, which may block or raise anything: it is for whoever runs it.
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
            problem = (
                f"{by} raised {type(error).__name__}{_place(error)}; it has to refuse options by a ValueError"
            )
            # Its message may quote an option, and so may a cause that is logged.
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
    """Return who serves `kind` for the graph (slug or id), or why nobody does: the caller has a built-in.

    With `shadow`, who serves the graph's shadow. This worker's own registry answers first; for sync, the
    other workers are looked up if it does not know. Options are validated, but for those of a routed sync
    provider: `Resolved.validated` is for the place where it runs. Raise StoreError, GraphNotFound,
    GraphInvalid or CompositionInvalid when it cannot be known, ShadowInvalid if the graph declares no shadow.
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
        # Whoever asks for another kind uses it in this very process.
        return await _not_installed(kind, services, graph, entry)
    if registered is None or blocked:
        # Without the table of workers (`syncline migrate`) this raises: nobody could know who is there, and
        # the wrong engine might sync a graph whose own is at work next door.
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
        # Its validators are a plugin's code, and this may be the event loop of all.
        return found
    return replace(found, options=found.validated())


async def resolve_sync_provider(
    services: ResolutionServices | None, graph_id: str | UUID | None, *, shadow: bool = False
) -> Resolved[SyncProvider]:
    """Return who syncs the graph or its shadow, or why nobody does; raise as `resolve_provider` does."""
    return await resolve_provider("sync", services, graph_id, shadow=shadow)


def resolved_before(
    services: ResolutionServices, graph: Graph, *, shadow: bool = False
) -> Resolved[SyncProvider]:
    """Return who syncs a graph by its record, which as it is was resolved already: no other worker is asked.

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
    """Return who decomposes the graph's sources, or why nobody does; raise as `resolve_provider` does."""
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
    # Someone should hear of it, once: a graph that syncs every minute would otherwise page all night.
    tell = log.warning if registry.first_miss(kind, graph.id, entry.provider) else log.debug
    known = registry.known(kind)
    if registered is None:
        event, listed = "provider is not installed", ", ".join(known) or "none"
        detail = f"No installed plugin contributes {kind} provider '{entry.provider}' (installed: {listed})."
    else:
        event = "provider is blocked, and no other worker has it"
        detail = (
            f"Provider '{entry.provider}' of {registered.distribution} blocks its event loop, and no other "
            "worker has it."
        )
    if required and explicit:
        detail += " It has said that nothing can stand in for it, and `on_missing` says `fallback`."
        tell("a required provider is replaced all the same", graph=graph.slug, provider=entry.provider)
    tell(event, graph=graph.slug, kind=kind, provider=entry.provider, known=list(known))
    return Resolved(graph=graph, entry=entry, reason=FallbackReason.NOT_INSTALLED, detail=detail)


def _place(error: BaseException) -> str:
    """Return the line that raised the error, if that is known."""
    stack = extract_tb(error.__traceback__)
    return f" at {Path(stack[-1].filename).name}:{stack[-1].lineno} in {stack[-1].name}" if stack else ""
