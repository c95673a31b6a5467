"""Fleet description: registered workers, their providers, and the graphs that use each provider."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from syncline import names
from syncline.control.composition import parse_composition
from syncline.control.graphs import GraphRepository
from syncline.control.workers import WorkerRecord, WorkerRepository
from syncline.errors import CompositionInvalid
from syncline.messages.base import GraphStatus, Message

__all__ = ["Fleet", "Installed", "ProviderUse", "describe_fleet"]

_MOST_NAMED: Final = 100
"""Maximum graphs and workers listed per field: the result is kept in a history."""

_Provider = tuple[str, str]
"""Kind and id."""


class Installed(Message):
    """One version of a provider, and the workers that have it."""

    version: str
    api_version: int
    distribution: str
    workers: int
    worker_names: tuple[str, ...]
    """Worker identities; the first 100."""


class ProviderUse(Message):
    """A provider that a worker has, or that a graph names."""

    kind: str
    id: str
    installed: tuple[Installed, ...] = ()
    """Installed versions. Empty if no worker has it: graphs that name it are in fallback, held, or fail."""
    graphs: int = 0
    """Number of graphs whose composition or shadow names it, without archived ones."""
    graph_names: tuple[str, ...] = ()
    """Slugs (`<slug>/shadow` for a shadow); the first 100."""


class Fleet(Message):
    """Result of workflow `DescribeFleet`: workers, their providers, and the graphs that use them."""

    workers: int
    worker_list: tuple[WorkerRecord, ...]
    """Workers registered or refreshed in the last 100 seconds, by identity; the first 100."""
    providers: tuple[ProviderUse, ...]
    graphs: int
    undeclared: int
    """Number of graphs without a sync provider in their composition; the built-in engine serves them."""
    undeclared_names: tuple[str, ...]
    refused: dict[str, str]
    """Slug to the problem of its record or composition; the first 100."""


class DescribedServices(Protocol):
    """The part of `syncline.services.Services` that `describe_fleet` needs."""

    @property
    def graphs(self) -> GraphRepository:
        """The graph records."""

    @property
    def workers(self) -> WorkerRepository:
        """The registered workers."""


async def describe_fleet(services: DescribedServices) -> Fleet:
    """Return the fleet by the control plane, or raise StoreError."""
    workers = await services.workers.list()
    records = await services.graphs.records()
    graphs = [graph for graph in records.valid if graph.status is not GraphStatus.ARCHIVED]
    refused = {slug: str(error) for slug, error in records.invalid.items()}
    used: dict[_Provider, list[str]] = {}
    undeclared = []
    for graph in graphs:
        try:
            composition = parse_composition(graph.slug, graph.composition)
        except CompositionInvalid as error:
            refused[graph.slug] = str(error)
            continue
        for kind, entry, shadow in composition.declared():
            name = names.shadow_slug(graph.slug) if shadow else graph.slug
            used.setdefault((kind, entry.provider), []).append(name)
        if composition.sync is None:
            undeclared.append(graph.slug)
    installed = _installed(workers)
    return Fleet(
        workers=len(workers),
        worker_list=tuple(workers[:_MOST_NAMED]),
        providers=tuple(
            ProviderUse(
                kind=kind,
                id=provider_id,
                installed=tuple(installed.get((kind, provider_id), ())),
                graphs=len(used.get((kind, provider_id), ())),
                graph_names=tuple(used.get((kind, provider_id), ())[:_MOST_NAMED]),
            )
            for kind, provider_id in sorted(used.keys() | installed.keys())
        ),
        graphs=len(graphs),
        undeclared=len(undeclared),
        undeclared_names=tuple(undeclared[:_MOST_NAMED]),
        refused={slug: refused[slug] for slug in sorted(refused)[:_MOST_NAMED]},
    )


def _installed(workers: Iterable[WorkerRecord]) -> Mapping[_Provider, Sequence[Installed]]:
    """Return every installed version of every provider, with its workers."""
    having: dict[tuple[str, str, str, int, str], list[str]] = {}
    for worker in workers:
        for found in worker.providers:
            key = (found.kind, found.id, found.version, found.api_version, found.distribution)
            having.setdefault(key, []).append(worker.identity)
    installed: dict[_Provider, list[Installed]] = {}
    for (kind, provider_id, version, api_version, distribution), having_it in sorted(having.items()):
        installed.setdefault((kind, provider_id), []).append(
            Installed(
                version=version,
                api_version=api_version,
                distribution=distribution,
                workers=len(having_it),
                worker_names=tuple(having_it[:_MOST_NAMED]),
            )
        )
    return installed
