"""Reads the numbers of graphs: one bounded query per graph-db schema, side by side; one per write-db."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple, Protocol, TypeVar

import asyncpg

from syncline import names
from syncline.capture.listen.session import changed_since
from syncline.capture.listen.tenants import changed_tenants, tenants_of
from syncline.control.graphs import Graph, GraphRecords
from syncline.control.rebuild_record import RebuildRecords
from syncline.errors import GraphNotFound, SynclineError
from syncline.messages.base import GraphStatus
from syncline.operator.graph_state import GraphNumbers, GraphNumbersPage, VectorDelay
from syncline.operator.schema import checked_limit
from syncline.provider import GraphSchema, GraphVectors
from syncline.run_text import format_seconds
from syncline.sql import quoted, statements_of
from syncline.stores.horizon import HORIZON, OLDEST_WRITER
from syncline.stores.postgres import PostgresStore
from syncline.stores.vectors import VectorStore

__all__ = ["read_numbers"]

_sql = statements_of("syncline.operator")

_AT_ONCE: Final = 2
"""Connections to one store: the pool is that of the cycles."""
_LONG: Final = 5.0
"""Seconds from which an open transaction holds rows back; shorter ones are normal operation."""


AnswerT = TypeVar("AnswerT")
_Told = tuple[GraphNumbers, Sequence[str]]


class Asked(Protocol):
    """The part of `syncline.control.services.Services` that is needed here."""

    def target_schema(self, graph: Graph, *, shadow: bool = False) -> GraphSchema:
        """Return the graph's schema, as Services do."""

    def write_schema(self, graph: Graph) -> GraphSchema:
        """Return the graph's schema, as Services do."""

    def graph_vectors(self, graph: Graph, *, shadow: bool = False) -> GraphVectors:
        """Return the graph's collections, as Services do."""

    @property
    def rebuilds(self) -> RebuildRecords:
        """The graphs' rebuilds, as Services have them."""


class _Within:
    """The time in which all stores have to answer, from now on."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._until = seconds, asyncio.get_running_loop().time() + seconds

    async def ask(self, ask: Callable[[], Awaitable[AnswerT]], instead: Callable[[str], AnswerT]) -> AnswerT:
        """Return the answer, or what takes its place when the store fails or does not answer in time."""
        try:
            async with asyncio.timeout_at(self._until):
                return await ask()
        except TimeoutError:
            return instead(f"its store did not answer within {self._seconds:g} s")
        except SynclineError as error:
            return instead(str(error))
        except asyncpg.PostgresError as error:
            return instead(f"its store refused the question (SQLSTATE {error.sqlstate})")


async def read_numbers(
    services: Asked,
    records: GraphRecords,
    *,
    graph: str | None = None,
    after: str | None = None,
    limit: int = 250,
    seconds: float = 3.0,
) -> GraphNumbersPage:
    """Return the numbers of a page of graphs, or of the named one; raise GraphNotFound for an unknown one.

    A graph whose stores do not answer within `seconds` has a `problem`; archived ones have only their status.
    """
    within = _Within(seconds)
    if graph is not None and (slug := names.shadowed_slug(graph)) is not None:
        return await _of_shadow(services, records, slug, within)
    known = {**{one.slug: one for one in records.valid}, **dict.fromkeys(records.invalid)}
    slugs = sorted(slug for slug in known if after is None or slug > after)
    if graph is not None:
        if graph not in known:
            raise GraphNotFound(graph)
        slugs = [graph]
    page = slugs[: checked_limit(limit)]
    asked = [one for slug in page if (one := known[slug]) is not None]
    found = await _numbers(services, [one for one in asked if one.status is not GraphStatus.ARCHIVED], within)
    for slug, until in (await services.rebuilds.kept_too_long(asked)).items():
        if slug in found:
            found[slug] = found[slug].model_copy(update={"kept_until": until})
    for one in asked:
        found.setdefault(one.slug, GraphNumbers(graph=one.slug, status=one.status))
    for slug in page:
        if known[slug] is None:
            found[slug] = GraphNumbers(graph=slug, invalid=str(records.invalid[slug]), kept=False)
    return GraphNumbersPage(
        graphs=tuple(found[slug] for slug in page), next=page[-1] if len(slugs) > len(page) else None
    )


async def _of_shadow(services: Asked, records: GraphRecords, slug: str, within: _Within) -> GraphNumbersPage:
    """Return the numbers of a graph's shadow: of its own state tables, and the write-db that both read."""
    graph = next((one for one in records.valid if one.slug == slug), None)
    if graph is None:
        raise GraphNotFound(slug)
    found = await _numbers(services, [graph], within, shadow=True)
    return GraphNumbersPage(graphs=(found[slug].model_copy(update={"graph": names.shadow_slug(slug)}),))


async def _numbers(
    services: Asked, graphs: Sequence[Graph], within: _Within, *, shadow: bool = False
) -> dict[str, GraphNumbers]:
    targets: dict[PostgresStore, list[Graph]] = {}
    sources: dict[PostgresStore, list[Graph]] = {}
    for graph in graphs:
        targets.setdefault(services.target_schema(graph).store, []).append(graph)
        sources.setdefault(services.write_schema(graph).store, []).append(graph)
    told, held, aliases = await asyncio.gather(
        asyncio.gather(
            *(_of_store(services, store, here, within, shadow=shadow) for store, here in targets.items())
        ),
        asyncio.gather(*(_held_back(store, here, within) for store, here in sources.items())),
        _aliases(services, graphs, within, shadow=shadow),
    )
    found: dict[str, GraphNumbers] = {}
    for of_store in told:
        for slug, (numbers, collections) in of_store.items():
            vectors, present = aliases.get(slug, (None, None))
            missing = (
                []
                if shadow or vectors is None or present is None
                else set(map(vectors.alias, collections)) - set(present)
            )
            found[slug] = numbers.model_copy(update={"missing_aliases": tuple(sorted(missing))})
    for here in held:
        for slug, held_back in here.items():
            numbers = found[slug]
            change = {
                "held_back_by": held_back.by,
                "lag_seconds": max(numbers.lag_seconds, held_back.seconds),
                "problem": numbers.problem or held_back.problem,
            }
            found[slug] = numbers.model_copy(update=change)
    return found


async def _of_store(
    services: Asked, store: PostgresStore, graphs: Sequence[Graph], within: _Within, *, shadow: bool
) -> dict[str, _Told]:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(graph: Graph) -> _Told:
        async with slots, store.driver() as connection:
            return await _of_graph(connection, graph, services.target_schema(graph, shadow=shadow).schema)

    async def bounded(graph: Graph) -> _Told:
        return await within.ask(lambda: one(graph), lambda problem: _unknown(graph, problem))

    found = await asyncio.gather(*map(bounded, graphs))
    return {told[0].graph: told for told in found}


def _unknown(graph: Graph, problem: str) -> _Told:
    return GraphNumbers(graph=graph.slug, status=graph.status, problem=problem), ()


async def _of_graph(connection: asyncpg.Connection, graph: Graph, schema: str) -> _Told:
    """Return the numbers of a graph, and its collections with points."""
    named = quoted(schema)
    if not await connection.fetchval(_sql("graph_has_numbers"), named):
        none = GraphNumbers(
            graph=graph.slug, status=graph.status, kept=False, max_lag_seconds=graph.max_lag_seconds
        )
        return none, ()
    row = await connection.fetchrow(
        _sql("graph_numbers", schema=named, withheld=_sql("withheld", schema=named))
    )
    delays: list[dict[str, str]] = json.loads(row["delays"])
    owes = await connection.fetchrow(_sql("graph_owes", schema=named)) if row["owing"] else None
    numbers = GraphNumbers(
        graph=graph.slug,
        status=graph.status,
        refused_rows=row["refused_rows"],
        refused_example=row["refused_example"],
        retry_at=row["retry_at"],
        refused_points=row["refused_points"],
        refused_points_example=row["refused_points_example"],
        parked=row["parked"],
        pending_points=row["pending_points"],
        delays=tuple(
            VectorDelay(
                collection=delay["collection"],
                since=datetime.fromisoformat(delay["since"]),
                next_retry_at=datetime.fromisoformat(delay["next_retry_at"]),
                error=delay["error"],
            )
            for delay in delays
        ),
        owed=0 if owes is None else owes["owed"],
        owed_problem=None if owes is None else owes["problem"],
        withheld=row["withheld"] or 0,
        withheld_tables=row["withheld_tables"],
        behind_since=row["behind_since"],
        lag_seconds=row["behind_seconds"],
        max_lag_seconds=graph.max_lag_seconds,
    )
    return numbers, row["collections"]


async def _aliases(
    services: Asked, graphs: Sequence[Graph], within: _Within, *, shadow: bool
) -> Mapping[str, tuple[GraphVectors, Collection[str] | None]]:
    """Return slug -> its vectors, and all aliases of their store; None where it does not say."""
    vectors: dict[str, GraphVectors] = {}
    for graph in graphs:
        with suppress(SynclineError):
            vectors[graph.slug] = services.graph_vectors(graph, shadow=shadow)
    stores = list({id(one.store): one.store for one in vectors.values()}.values())

    async def ask(store: VectorStore) -> Collection[str] | None:
        return await within.ask(store.aliases, lambda _: None)

    present = {
        id(store): found for store, found in zip(stores, await asyncio.gather(*map(ask, stores)), strict=True)
    }
    return {slug: (one, present[id(one.store)]) for slug, one in vectors.items()}


class _HeldBack(NamedTuple):
    """What committed rows of a graph wait for."""

    by: str | None = None
    """The open transaction."""
    seconds: float = 0.0
    """For how long it has been open, as far as is known."""
    problem: str | None = None
    """Why that could not be asked."""


async def _held_back(
    store: PostgresStore, graphs: Sequence[Graph], within: _Within
) -> Mapping[str, _HeldBack]:
    """Return which graphs have committed rows behind an open transaction of their write-db."""

    def unknown(problem: str) -> Mapping[str, _HeldBack]:
        return {graph.slug: _HeldBack(problem=problem) for graph in graphs}

    return await within.ask(lambda: _behind_writers(store, graphs), unknown)


async def _behind_writers(store: PostgresStore, graphs: Sequence[Graph]) -> Mapping[str, _HeldBack]:
    async with store.driver() as connection:
        row = await connection.fetchrow(_sql("write_horizon", horizon=HORIZON, oldest_writer=OLDEST_WRITER))
    age = row["age"]
    least = min([_LONG, *(graph.max_lag_seconds for graph in graphs if graph.max_lag_seconds)])
    # A standby knows no open writers; a role without pg_read_all_stats no age.
    if not row["standby"] and (row["name"] is None or (age is not None and age < least)):
        return {}
    by_schema: dict[str, list[Graph]] = {}
    for graph in graphs:
        by_schema.setdefault(graph.source_schema, []).append(graph)
    behind: set[str] = set()
    for schema in await changed_since(store, list(by_schema), row["horizon"]):
        here = by_schema[schema]
        tenants = tenants_of(here)
        if len(here) > 1 and tenants:
            behind |= await changed_tenants(store, schema, tenants, row["horizon"])
        else:
            behind.update(graph.slug for graph in here)
    return dict.fromkeys(behind, _HeldBack(by=_writer(row), seconds=age or 0.0))


def _writer(row: asyncpg.Record) -> str:
    if row["name"] is None:
        return "an open transaction of the write-db's primary"
    age = "" if row["age"] is None else f", open for {format_seconds(row['age'])}"
    return f"an open transaction of the write-db ({row['name']}{age})"
