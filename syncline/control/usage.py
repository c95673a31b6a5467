"""The ledger of embeddings, and the budgets of tokens: who used what, and what is left of the day.

What a cycle uses is booked in the control plane, summed by graph, service, month and run. With a budget, a
request is sent only after one statement has held the most that it can use, and is booked at once. Without one
nothing is asked, and bookings are collected for a few seconds. One module because what is booked and what is
left are one statement.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Final
from uuid import UUID

import structlog

from syncline.control.graphs import Graph
from syncline.embeddings.metered import MeteredEmbedding, TokenRule, Used
from syncline.embeddings.service import EmbeddingService
from syncline.errors import (
    EmbeddingBudgetSpent,
    EmbeddingUnavailable,
    InputInvalid,
    StoreError,
)
from syncline.messages.sync import EmbeddingUsed
from syncline.messages.usage import BudgetState, UsageLine, UsageReport
from syncline.sql import Statements, statements_of
from syncline.stores.postgres import PostgresStore

__all__ = ["CycleAccount", "UsageLedger", "budgets_in_force", "read_budgets", "read_usage"]

_log = structlog.get_logger(__name__)
sql: Statements = statements_of("syncline.control")

_KEPT_DAYS: Final = 35
"""How long runs are kept apart: longer than any month, so that a bill can be looked into."""
_REQUESTS: Final = 20
_SECONDS: Final = 5.0
"""A killed worker loses no more of the ledger than this many requests, or what came in this time."""
_POLL: Final = (0.02, 0.5)
_WAITED: Final = 10.0
"""Seconds that a request waits for others to give back what they hold; then its texts are delayed."""
_GRAPH, _SERVICE = "graph", "service"


@dataclass(slots=True, kw_only=True)
class _Entry:
    """One line to book."""

    graph_id: UUID
    slug: str
    service: str
    run_id: str
    day: date | None = None
    """The day that was reserved for; None: the day on which it is booked."""
    used: Used = field(default_factory=Used)
    counted: int = 0
    """Tokens that count towards the budgets of the day."""
    held_of_graph: int = 0
    held_of_service: int = 0
    closed_of_graph: int = 0
    closed_of_service: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What was reserved for one request."""

    day: date
    tokens: int


class UsageLedger:
    """The ledger of one process. Belongs to one event loop."""

    def __init__(
        self,
        control: PostgresStore,
        *,
        tokens_per_day: int | None,
        patience: float,
        second_tokens_per_day: int | None = None,
    ) -> None:
        """Book in the control plane. `tokens_per_day` is the budget of the embedding service, the other that
        of the second one.

        Where nothing was booked for `patience` seconds, workers of requests that are under way count as gone.
        """
        self._control, self.tokens_per_day, self.patience = control, tokens_per_day, patience
        self.second_tokens_per_day = second_tokens_per_day
        self._rules: dict[str, TokenRule] = {}
        self._waiting: dict[tuple[UUID, str, str, str, date | None], _Entry] = {}
        self._requests = 0
        self._since: float | None = None
        self._pruned_at = float("-inf")
        self._turn = asyncio.Lock()
        self.today: dict[tuple[str, str], int] = {}
        """Tokens of the day by scope and name, as of the last booking."""

    @asynccontextmanager
    async def cycle(
        self,
        graph: Graph,
        *,
        slug: str,
        run_id: str,
        service: EmbeddingService,
        batch: int,
        second: bool = False,
    ) -> AsyncIterator[tuple[MeteredEmbedding, "CycleAccount"]]:
        """Yield the embedding service of one cycle, and its account; book what is left at the end.

        `second`: it is the other service that this process offers.
        """
        account = CycleAccount(self, graph, slug=slug, run_id=run_id, service=service.name, second=second)
        rule = self._rules.setdefault(service.name, TokenRule())
        try:
            yield MeteredEmbedding(service, account, rule=rule, batch=batch), account
        finally:
            await self.flush()

    async def add(self, entry: _Entry, *, at_once: bool) -> None:
        """Book an entry now, or with the next ones. Never raises: what was paid for is not thrown away."""
        if at_once:
            await self._write([entry])
            return
        self._keep(entry)
        now = time.monotonic()
        self._requests += entry.used.requests
        if self._since is None:
            self._since = now
        if self._requests >= _REQUESTS or now - self._since >= _SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Book what waits, if anything; what cannot be booked now waits for the next time."""
        if not self._waiting:
            return
        entries, self._waiting = list(self._waiting.values()), {}
        self._requests, self._since = 0, None
        await self._write(entries)

    async def close(self) -> None:
        """Book what waits; log what cannot be booked any more."""
        await self.flush()
        for entry in self._waiting.values():
            _log.error(
                "embeddings not booked",
                graph=entry.slug,
                run=entry.run_id,
                texts=entry.used.texts,
                tokens=entry.used.tokens,
                requests=entry.used.requests,
            )

    def _keep(self, entry: _Entry) -> None:
        key = (entry.graph_id, entry.slug, entry.service, entry.run_id, entry.day)
        if (present := self._waiting.get(key)) is None:
            self._waiting[key] = entry
            return
        present.used.add(entry.used)
        present.counted += entry.counted
        present.held_of_graph += entry.held_of_graph
        present.held_of_service += entry.held_of_service
        present.closed_of_graph += entry.closed_of_graph
        present.closed_of_service += entry.closed_of_service

    async def _write(self, entries: Sequence[_Entry]) -> None:
        try:
            async with self._control.driver() as connection:
                rows = await connection.fetch(sql("usage_book"), *_columns(entries))
                if time.monotonic() - self._pruned_at > timedelta(days=1).total_seconds():
                    await connection.execute(sql("usage_prune"), _KEPT_DAYS)
                    self._pruned_at = time.monotonic()
        except BaseException as error:
            for entry in entries:
                self._keep(entry)
            if not isinstance(error, StoreError):
                raise
            _log.warning("embeddings not booked yet", entries=len(entries), error=str(error))
            return
        for row in rows:
            self.today[row["scope"], row["name"]] = row["tokens"]

    async def reserve(self, account: "CycleAccount", tokens: int) -> _Held:
        """Hold tokens in the budgets of an account; raise EmbeddingBudgetSpent or EmbeddingUnavailable."""
        budgets = account.budgets
        scopes, names = [scope for scope, _ in budgets], [name for _, name in budgets]
        give_up = time.monotonic() + min(self.patience, _WAITED)
        pause, last = _POLL
        while True:
            try:
                async with self._control.driver() as connection:
                    arguments = (scopes, names, list(budgets.values()), tokens, self.patience)
                    rows = await connection.fetch(sql("usage_reserve"), *arguments)
                    if len(rows) < len(budgets):
                        await connection.execute(sql("usage_days"), scopes, names)
                        rows = await connection.fetch(sql("usage_reserve"), *arguments)
            except StoreError as error:
                raise EmbeddingUnavailable(
                    account.service,
                    f"nothing was sent, because its budget of tokens could not be asked: {error}",
                ) from error
            if rows and rows[0]["admitted"]:
                return _Held(day=rows[0]["day"], tokens=tokens)
            full = [row for row in rows if row["full"]]
            spent = [row for row in full if row["tokens"] >= row["budget"] or not row["waits"]]
            if spent or (full and time.monotonic() >= give_up):
                [row, *_] = spent or full
                raise account.spent(
                    row["scope"], used=row["tokens"] + row["held"], budget=row["budget"], day=row["day"]
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, last)


class CycleAccount:
    """The account of one cycle: an `Account` of a metered embedding service."""

    def __init__(
        self,
        ledger: UsageLedger,
        graph: Graph,
        *,
        slug: str,
        run_id: str,
        service: str,
        second: bool = False,
    ) -> None:
        self._ledger, self._graph, self._slug, self._run_id = ledger, graph, slug, run_id
        self.service, self._second = service, second
        self._budget = ledger.second_tokens_per_day if second else ledger.tokens_per_day
        self.used = Used()
        self.budgets: Mapping[tuple[str, str], int] = {
            place: budget
            for place, budget in (
                ((_GRAPH, str(graph.id)), graph.vectors.tokens_per_day),
                ((_SERVICE, service), self._budget),
            )
            if budget is not None
        }

    @property
    def budgeted(self) -> bool:
        return bool(self.budgets)

    async def reserve(self, tokens: int) -> _Held:
        return await self._ledger.reserve(self, tokens)

    async def settle(self, held: _Held, used: Used, *, answered: bool) -> None:
        self.used.add(used)
        scopes = {scope for scope, _ in self.budgets}
        freed = held.tokens if answered else 0
        entry = self._entry(used, counted=used.tokens if answered else 0)
        entry.day = held.day
        if _GRAPH in scopes:
            entry.held_of_graph, entry.closed_of_graph = freed, 1
        if _SERVICE in scopes:
            entry.held_of_service, entry.closed_of_service = freed, 1
        await self._ledger.add(entry, at_once=True)

    async def book(self, used: Used) -> None:
        if used.requests:
            self.used.add(used)
            await self._ledger.add(self._entry(used, counted=used.tokens), at_once=False)

    def spent(self, scope: str, *, used: int, budget: int, day: date) -> EmbeddingBudgetSpent:
        """Return the error of a budget that is used up."""
        of_graph = scope == _GRAPH
        return EmbeddingBudgetSpent(
            self.service,
            scope=scope,
            whose=f"graph '{self._graph.slug}'" if of_graph else "the service",
            used=used,
            budget=budget,
            retry_at=_next(day),
            fix=f"`syncline graph set {self._graph.slug} --tokens-per-day N`"
            if of_graph
            else f"SYNCLINE_{'SECOND_' if self._second else ''}EMBEDDING_TOKENS_PER_DAY",
        )

    def result(self) -> EmbeddingUsed | None:
        """Return what the cycle used; None if nothing."""
        if not self.used.requests:
            return None
        return EmbeddingUsed(
            texts=self.used.texts,
            tokens=self.used.tokens,
            estimated=self.used.estimated,
            requests=self.used.requests,
            refused=self.used.refused,
            today=self._ledger.today.get((_GRAPH, str(self._graph.id))),
            budget=self._graph.vectors.tokens_per_day,
            service_today=self._ledger.today.get((_SERVICE, self.service)),
            service_budget=self._budget,
        )

    def _entry(self, used: Used, *, counted: int) -> _Entry:
        return _Entry(
            graph_id=self._graph.id,
            slug=self._slug,
            service=self.service,
            run_id=self._run_id,
            used=used,
            counted=counted,
        )


def _columns(entries: Sequence[_Entry]) -> Sequence[Sequence[object]]:
    return list(
        zip(
            *(
                (
                    entry.graph_id,
                    entry.slug,
                    entry.service,
                    entry.run_id,
                    entry.day,
                    entry.used.texts,
                    entry.used.tokens,
                    entry.used.estimated,
                    entry.used.requests,
                    entry.used.refused,
                    entry.counted,
                    entry.held_of_graph,
                    entry.held_of_service,
                    entry.closed_of_graph,
                    entry.closed_of_service,
                )
                for entry in entries
            ),
            strict=True,
        )
    )


def _next(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time_of_day(), UTC)


def budgets_in_force(
    graphs: Sequence[Graph], *, service: str, tokens_per_day: int | None
) -> Mapping[tuple[str, str], tuple[str, int]]:
    """Return scope and name -> what operators call it, and its tokens a day."""
    of_graphs = {
        (_GRAPH, str(graph.id)): (graph.slug, graph.vectors.tokens_per_day)
        for graph in graphs
        if graph.vectors.tokens_per_day is not None
    }
    of_service = {} if tokens_per_day is None else {(_SERVICE, service): (service, tokens_per_day)}
    return {**of_graphs, **of_service}


async def read_usage(
    control: PostgresStore,
    graph: Graph | None,
    *,
    month: str | None,
    limit: int,
    budgets: Mapping[tuple[str, str], tuple[str, int]],
) -> UsageReport:
    """Return what was used: by month, graph and service, and with a graph its newest runs.

    `budgets` are those in force: scope and name -> what operators call it, and its tokens a day.
    """
    first = None if month is None else _month(month)
    graph_id = None if graph is None else graph.id
    async with control.driver() as connection:
        months = await connection.fetch(sql("usage_months"), graph_id, first, limit)
        runs = [] if graph is None else await connection.fetch(sql("usage_runs"), graph_id, first, limit)
    return UsageReport(
        months=tuple(UsageLine.model_validate(dict(row)) for row in months),
        runs=tuple(UsageLine.model_validate(dict(row)) for row in runs),
        budgets=await read_budgets(control, budgets),
    )


async def read_budgets(
    control: PostgresStore, budgets: Mapping[tuple[str, str], tuple[str, int]]
) -> tuple[BudgetState, ...]:
    """Return what is used today of these budgets, as `budgets_in_force` has them; asks nothing for none."""
    if not budgets:
        return ()
    async with control.driver() as connection:
        days = await connection.fetch(sql("usage_today"), *map(list, zip(*budgets, strict=True)))
    found = {(row["scope"], row["name"]): row for row in days}
    return tuple(
        BudgetState(
            scope=place[0],
            name=called,
            budget=budget,
            used=found[place]["tokens"] if place in found else 0,
            held=found[place]["held"] if place in found else 0,
        )
        for place, (called, budget) in budgets.items()
    )


def _month(month: str) -> date:
    try:
        return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        raise InputInvalid("`month` is not of the form YYYY-MM.") from None
