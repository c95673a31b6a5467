"""Verification results: per relation, the number of equal keys and the keys that differ."""

from enum import StrEnum
from typing import Self

from pydantic import Field

from syncline.messages.base import Message

__all__ = ["Found", "Relation", "RelationKind", "Verdict", "Verification"]


class RelationKind(StrEnum):
    """Which pair of stores was compared."""

    ROWS = "rows"
    """A table of the write-db against its table of the graph-db."""
    LINKS = "links"
    """An array of the write-db against its link table of the graph-db; a key is owner's plus member's key."""
    STATS = "stats"
    """The stored statistics of the graph-db against a recount of its rows."""
    VECTORS = "vectors"
    """A table of the graph-db against its collection of the vector store."""


class Verdict(StrEnum):
    """Classification of a key that is not equal."""

    MISSING = "missing"
    """Absent from the target, and no pending change will add it."""
    EXTRA = "extra"
    """In the target but not in the source; or parked although the write-db no longer contains it."""
    STALE = "stale"
    """In the target with other values, although the engine has read the current version."""
    PARKED = "parked"
    """The row, or one of its references, is parked until its parent arrives."""
    DEAD = "dead"
    """Rejected by the graph-db or the vector store."""
    PENDING = "pending"
    """Pending: a following cycle will read or write it."""
    DELAYED = "delayed"
    """A rejected point that will be retried automatically."""

    @property
    def damage(self) -> bool:
        """Whether only a repair, or another change of the row, will correct it."""
        return self in (Verdict.MISSING, Verdict.EXTRA, Verdict.STALE)


class Found(Message):
    """The keys with one verdict."""

    count: int = 0
    keys: tuple[tuple[str, ...], ...] = ()
    """The first keys, ordered by id."""


class Relation(Message):
    """Findings of one relation."""

    name: str
    """The table, link table, statistics table or collection (without the graph's prefix)."""
    kind: RelationKind
    table: str
    """The table of the table map that it belongs to."""
    equal: int = 0
    missing: Found = Found()
    extra: Found = Found()
    stale: Found = Found()
    parked: Found = Found()
    dead: Found = Found()
    pending: Found = Found()
    delayed: Found = Found()
    queued: int = 0
    """Keys that a repair has queued for the next cycle. Statistics are repaired immediately."""
    columns: dict[str, int] = Field(default_factory=dict)
    """In a comparison with the shadow: rows or points that differ, per column."""
    problem: str | None = None
    """Why it could not be compared or repaired completely."""
    filling: bool = False
    """Whether a column of the table is being filled in the background: rows that differ count as pending."""
    delayed_by: str | None = None
    """Why the collection cannot be written now: what a repair queues waits until that is mended."""
    seconds: float = 0.0

    def found(self, verdict: Verdict) -> Found:
        """Return the keys with this verdict."""
        found: Found = getattr(self, verdict.value)
        return found

    @property
    def compared(self) -> int:
        """How many keys were compared."""
        return self.equal + sum(self.found(verdict).count for verdict in Verdict)

    @property
    def damaged(self) -> int:
        """How many keys only a repair can correct."""
        return sum(self.found(verdict).count for verdict in Verdict if verdict.damage)


class Verification(Message):
    """Findings of one graph."""

    relations: tuple[Relation, ...] = ()
    shadow: bool = False
    """Whether the live graph was compared with its shadow: then `missing` keys are absent from the shadow,
    `extra` keys are only in the shadow, and `stale` keys have other values in it."""
    behind: tuple[str, ...] = ()
    """Pending work of either side that may explain differences from the shadow, in sentences."""
    not_compared: tuple[str, ...] = ()
    """Parts of the graph that were not compared, and why, in sentences: tables that the provider defines."""
    owed: tuple[str, ...] = ()
    """What a first load has put off and not put back yet, in sentences."""
    rescan: bool = False
    """Whether the cursors belong to another write-db, so that the next cycle reads all rows again."""
    seconds: float = 0.0

    def naming(self, keys: int) -> Self:
        """Return a copy with at most `keys` keys per verdict."""
        relations = []
        for relation in self.relations:
            found = {verdict.value: relation.found(verdict) for verdict in Verdict}
            fewer = {name: one.model_copy(update={"keys": one.keys[:keys]}) for name, one in found.items()}
            relations.append(relation.model_copy(update=fewer))
        return self.model_copy(update={"relations": tuple(relations)})

    @property
    def differences(self) -> tuple[str, ...]:
        """Differences from the shadow, one sentence per column."""
        return tuple(
            f"{relation.name} ({relation.kind.value}) differ in {column}: {count:,}"
            for relation in self.relations
            for column, count in relation.columns.items()
        )

    @property
    def equal(self) -> bool:
        """Whether nothing is missing, extra or stale, and everything could be compared."""
        return self.complete and not self.damaged

    @property
    def complete(self) -> bool:
        """Whether everything could be compared."""
        return not self.not_compared and not any(relation.problem for relation in self.relations)

    @property
    def compared(self) -> int:
        """How many keys were compared."""
        return sum(relation.compared for relation in self.relations)

    @property
    def damaged(self) -> int:
        """How many keys only a repair can correct."""
        return sum(relation.damaged for relation in self.relations)

    @property
    def queued(self) -> int:
        """How many keys a repair has queued, in all of its attempts."""
        return sum(relation.queued for relation in self.relations)

    def sentence(self, *, emphasis: str = "") -> str:
        """Return the outcome in one line; `emphasis` is put around what is not equal."""
        queued = f", {self.queued:,} queued for repair by the next cycle" if self.queued else ""
        outcome = f"{self.damaged:,} {'differ from the shadow' if self.shadow else 'damaged'}"
        if not self.damaged and not self.complete:
            outcome = "not comparable" if self.not_compared else "not everything was compared"
        outcome = f"{emphasis}{outcome}{emphasis}" if queued or not self.equal else "equal"
        return f"{self.compared:,} compared in {self.seconds:.1f} s: {outcome}{queued}"
