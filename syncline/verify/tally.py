"""Tally: the verdict counts of one relation, with the first keys of each; passes damage to a repair."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from syncline.messages.verification import Found, Relation, RelationKind, Verdict

__all__ = ["Damage", "Heartbeater", "Mend", "Tally"]

Damage = tuple[UUID, tuple[str, ...], Verdict]
"""(row id, key, verdict) of a damaged row."""
Mend = Callable[[Sequence[Damage]], Awaitable[int]]
"""Request the repair of these; return how many were new."""
Heartbeater = Callable[[str, int], None]
"""Called with the relation and the number of keys compared so far."""

_AT_ONCE = 5_000


class Tally:
    """The counts of one relation, until `close`."""

    def __init__(
        self,
        name: str,
        kind: RelationKind,
        table: str,
        *,
        keys: int,
        beat: Heartbeater,
        mend: Mend | None = None,
        queued: int = 0,
    ) -> None:
        """Keep up to `keys` keys of each verdict; pass damage to `mend` in portions.

        `queued` is the number requested before.
        """
        self._identity = {"name": name, "kind": kind, "table": table}
        self._name, self._limit, self._beat, self._mend = name, keys, beat, mend
        self._started = time.monotonic()
        self._counts = dict.fromkeys(Verdict, 0)
        self._keys: Mapping[Verdict, list[tuple[str, ...]]] = {verdict: [] for verdict in Verdict}
        self._damage: list[Damage] = []
        self._seen = 0
        self.queued = queued
        self.filling = False
        self.delayed_by: str | None = None
        self.equal = 0
        self._beat(name, 0)

    def same(self, number: int = 1) -> None:
        """Count keys that are equal."""
        self.equal += number
        self._saw(number)

    async def note(
        self,
        verdict: Verdict,
        key: Sequence[str | None],
        row_id: UUID,
        *,
        asked: Sequence[str] | None = None,
    ) -> None:
        """Record a key that differs; a repair requests `row_id` by key `asked`, if that differs.

        A part is None where the target has no key, because somebody else wrote the row.
        """
        named = tuple(f"? {row_id}" if part is None else part for part in key)
        self._counts[verdict] += 1
        if len(self._keys[verdict]) < self._limit:
            self._keys[verdict].append(named)
        if verdict.damage and self._mend is not None:
            self._damage.append((row_id, tuple(named if asked is None else asked), verdict))
            if len(self._damage) >= _AT_ONCE:
                await self._flush()
        self._saw(1)

    async def close(self, problem: str | None = None) -> Relation:
        """Return the result."""
        await self._flush()
        self._beat(self._name, self._seen)
        found = {
            verdict.value: Found(count=self._counts[verdict], keys=tuple(self._keys[verdict]))
            for verdict in Verdict
        }
        return Relation.model_validate(
            {
                **self._identity,
                **found,
                "equal": self.equal,
                "queued": self.queued,
                "filling": self.filling,
                "delayed_by": self.delayed_by,
                "problem": problem,
                "seconds": time.monotonic() - self._started,
            }
        )

    async def _flush(self) -> None:
        if self._mend is not None and self._damage:
            self.queued += await self._mend(self._damage)
        self._damage = []

    def _saw(self, number: int) -> None:
        if self._seen // 10_000 != (self._seen + number) // 10_000:
            self._beat(self._name, self._seen + number)
        self._seen += number
