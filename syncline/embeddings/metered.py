"""An embedding service whose use is booked, and which asks a budget before each request."""

import asyncio
import math
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeVar

import numpy as np

from syncline.concurrency import each_batch
from syncline.embeddings.pace import Pace, pace_of
from syncline.embeddings.service import EmbeddingService, Metered, Usage, Vectors
from syncline.errors import EmbeddingError
from syncline.stores.answer_watch import Watched

__all__ = ["Account", "MeteredEmbedding", "TokenRule", "Used"]

_IN_FLIGHT: Final = 4
_MARKS: Final = 4
"""Tokens that a model adds to each text: its beginning and end, and a prefix."""
_BYTES_A_TOKEN: Final = 4.0
"""Of English, by most models; what the service counts soon replaces it."""

HeldT = TypeVar("HeldT")


@dataclass(slots=True)
class Used:
    """What requests used, summed."""

    texts: int = 0
    tokens: int = 0
    estimated: int = 0
    """Those of the tokens that the service did not count itself."""
    requests: int = 0
    refused: int = 0
    """Texts of requests that it refused or did not answer."""

    def add(self, other: "Used") -> None:
        """Add field by field."""
        self.texts += other.texts
        self.tokens += other.tokens
        self.estimated += other.estimated
        self.requests += other.requests
        self.refused += other.refused


class TokenRule:
    """How many tokens texts have for one service: an estimate, and the most that they can have.

    Learns from what the service counts. No tokenizer makes more tokens of a text than it has bytes, but for
    the marks around it.
    """

    def __init__(self) -> None:
        self._rate = 1 / _BYTES_A_TOKEN
        self._told = False
        self._excess = 1.0

    def estimate(self, texts: Sequence[str]) -> int:
        """Return about how many tokens the texts have."""
        return max(len(texts), math.ceil(_bytes(texts) * self._rate))

    def bound(self, texts: Sequence[str]) -> int:
        """Return the most tokens that the texts can have."""
        return math.ceil((_bytes(texts) + _MARKS * len(texts)) * self._excess)

    def learn(self, texts: Sequence[str], tokens: int) -> None:
        """Take what the service counted for these texts."""
        size = max(_bytes(texts), 1)
        rate = tokens / size
        self._rate = rate if not self._told else 0.9 * self._rate + 0.1 * rate
        self._told = True
        # A service that counts otherwise, a prompt of its own for example, is bounded by what it said.
        self._excess = max(self._excess, tokens / (size + _MARKS * len(texts)))


def _bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


class Account(Protocol[HeldT]):
    """Where the use of one cycle is booked."""

    @property
    def budgeted(self) -> bool:
        """Whether a request needs a reservation."""

    async def reserve(self, tokens: int) -> HeldT:
        """Hold the most that a request can use; raise EmbeddingBudgetSpent, or EmbeddingUnavailable."""

    async def settle(self, held: HeldT, used: Used, *, answered: bool) -> None:
        """Book what a reserved request used. If it was not answered, what is held for it stays held."""

    async def book(self, used: Used) -> None:
        """Book what requests used that needed no reservation."""


@dataclass(slots=True)
class _Reported:
    """What the service told of its requests during one call."""

    usages: list[Usage] = field(default_factory=list)


_call: ContextVar[_Reported | None] = ContextVar("syncline_embedding_call", default=None)


def _note(usage: Usage) -> None:
    # Calls of several graphs share the service: each has the list of its own call in its context.
    told = _call.get()
    if told is not None:
        told.usages.append(usage)


class MeteredEmbedding:
    """The embedding service of one cycle, booked to an account.

    A request is sent only after its reservation, where the account has a budget: at most `batch` texts each,
    four at a time. What was used is booked whatever becomes of the call.
    """

    def __init__(
        self,
        service: EmbeddingService,
        account: Account[HeldT],
        *,
        rule: TokenRule,
        batch: int,
    ) -> None:
        """Book to `account`. `rule` is the service's, shared by all that use it in the process."""
        self._service, self._rule, self._batch = service, rule, batch
        self._budgeted = account.budgeted

        async def reserved(texts: Sequence[str]) -> Vectors:
            held = await account.reserve(rule.bound(texts))
            used, answered = Used(), False
            try:
                vectors, error = await self._called(texts, used)
                answered = error is None or not error.unanswered
            finally:
                await account.settle(held, used, answered=answered)
            if error is not None:
                raise error
            return vectors

        async def free(texts: Sequence[str]) -> Vectors:
            used = Used()
            try:
                vectors, error = await self._called(texts, used)
            finally:
                await account.book(used)
            if error is not None:
                raise error
            return vectors

        self._request = reserved if account.budgeted else free
        if isinstance(service, Metered):
            service.used = _note

    @property
    def name(self) -> str:
        return self._service.name

    @property
    def dimensions(self) -> int:
        return self._service.dimensions

    @property
    def silent_since(self) -> datetime | None:
        """Since when the service has been silent, if it is `Watched`."""
        return self._service.silent_since if isinstance(self._service, Watched) else None

    def doubt(self) -> None:
        """Send the next request only once a probe is answered, if the service is `Watched`."""
        if isinstance(self._service, Watched):
            self._service.doubt()

    @property
    def pace(self) -> Pace:
        """The pace of the service, which all that use it share."""
        return pace_of(self._service, self.name)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one vector per text, in order; raise as the service does, and EmbeddingBudgetSpent."""
        if not self._budgeted or len(texts) <= self._batch:
            return await self._request(texts)
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)

        async def send(rows: slice) -> None:
            vectors[rows] = await self._request(texts[rows])

        await each_batch(len(texts), size=self._batch, in_flight=_IN_FLIGHT, send=send)
        return vectors

    async def close(self) -> None:
        """Do nothing: other cycles use the service too."""

    async def _called(self, texts: Sequence[str], used: Used) -> tuple[Vectors, EmbeddingError | None]:
        """Embed the texts and sum up in `used` what that took; return the vectors, or the error."""
        told = _Reported()
        outer = _call.set(told)
        vectors: Vectors = np.empty((0, self.dimensions), dtype=np.float32)
        try:
            vectors = await self._service.embed(texts)
        except EmbeddingError as error:
            self._sum_up(texts, told, used, answered=not error.unanswered, succeeded=False)
            return vectors, error
        except asyncio.CancelledError:
            self._sum_up(texts, told, used, answered=False, succeeded=False)
            raise
        finally:
            _call.reset(outer)
        self._sum_up(texts, told, used, answered=True, succeeded=True)
        return vectors, None

    def _sum_up(
        self, texts: Sequence[str], told: _Reported, used: Used, *, answered: bool, succeeded: bool
    ) -> None:
        estimate = self._rule.estimate(texts)
        for usage in told.usages:
            tokens, estimated = usage.tokens or 0, 0
            if usage.tokens is None:
                share = (usage.texts + usage.refused) / max(len(texts), 1)
                estimated = tokens = math.ceil(estimate * share)
            used.add(
                Used(
                    texts=usage.texts,
                    tokens=tokens,
                    estimated=estimated,
                    requests=usage.requests,
                    refused=usage.refused,
                )
            )
        counted = [usage.tokens for usage in told.usages if usage.tokens is not None]
        if succeeded and told.usages and len(counted) == len(told.usages):
            self._rule.learn(texts, sum(counted))
        # A service that tells nothing, or a request that it did not get to tell of.
        if succeeded and not told.usages:
            used.add(Used(texts=len(texts), tokens=estimate, estimated=estimate, requests=1))
        elif not answered:
            rest = len(texts) - sum(usage.texts + usage.refused for usage in told.usages)
            lost = math.ceil(estimate * max(rest, 0) / max(len(texts), 1))
            used.add(Used(tokens=lost, estimated=lost, requests=1, refused=max(rest, 0)))
        elif not succeeded and not told.usages and not isinstance(self._service, Metered):
            used.add(Used(requests=1, refused=len(texts)))
