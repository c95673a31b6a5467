"""What is installed where, and which graphs use it."""

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
"""Graphs and workers that an answer names of each kind: it is kept in a history, however many there are."""

_Provider = tuple[str, str]
"""Kind and id."""


class Installed(Message):
    """One version of a provider, and who has it."""

    version: str
    api_version: int
    distribution: str
    workers: int
    worker_names: tuple[str, ...]
    """Identities; the first hundred."""


class ProviderUse(Message):
    """A provider that is installed somewhere, or that a graph names."""

    kind: str
    id: str
    installed: tuple[Installed, ...] = ()
    """Empty if no worker has it: then graphs that name it fall back, hold or fail."""
    graphs: int = 0
    """Graphs whose composition names it, and graphs whose shadow it serves; archived ones do not count."""
    graph_names: tuple[str, ...] = ()
    """Slugs, of a shadow `<slug>/shadow`; the first hundred."""


class Fleet(Message):
    """Result of workflow `DescribeFleet`: what is installed where, and used by whom."""

    workers: int
    worker_list: tuple[WorkerRecord, ...]
    """Those that were seen in the last 100 seconds, by identity; the first hundred."""
    providers: tuple[ProviderUse, ...]
    graphs: int
    undeclared: int
    """Graphs whose composition names no sync provider; the built-in engine serves them."""
    undeclared_names: tuple[str, ...]
    refused: dict[str, str]
    """Slug -> what is wrong with its record or its composition; the first hundred."""


class DescribedServices(Protocol):
    """What describing the fleet needs of `syncline.services.Services`."""

    @property
    def graphs(self) -> GraphRepository:
        """The records of the graphs."""

    @property
    def workers(self) -> WorkerRepository:
        """The workers of the deployment."""


async def describe_fleet(services: DescribedServices) -> Fleet:
    """Return what is installed where and which graphs use it, or raise StoreError."""
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
    """Return every version of every provider that a worker has, with those who have it."""
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
