"""What a verification found: per relation, how much is equal, and which keys are not."""

from enum import StrEnum
from typing import Self

from pydantic import Field

from syncline.messages.base import Message

__all__ = ["Found", "Relation", "RelationKind", "Verdict", "Verification"]


class RelationKind(StrEnum):
    """What was compared with what."""

    ROWS = "rows"
    """A table of the write-db with its table of the graph-db."""
    LINKS = "links"
    """An array of the write-db with its link table of the graph-db; a key is the owner's and the member's."""
    STATS = "stats"
    """The kept numbers of the graph-db with those that its rows give when they are counted again."""
    VECTORS = "vectors"
    """A table of the graph-db with its collection of the vector store."""


class Verdict(StrEnum):
    """What can be said of one key that is not simply equal."""

    MISSING = "missing"
    """It should be there, and nothing is on its way."""
    EXTRA = "extra"
    """It is there and should not be; or it waits for something although the write-db no longer has it."""
    STALE = "stale"
    """It is there and says something else, although the engine has seen the present version."""
    PARKED = "parked"
    """It, or a reference of it, waits for another row."""
    DEAD = "dead"
    """The graph-db, or the vector store, refused it."""
    PENDING = "pending"
    """It is on its way: the next cycles have yet to read it, or to write it."""
    DELAYED = "delayed"
    """A point that was refused and is tried again by itself."""

    @property
    def damage(self) -> bool:
        """Whether nothing but a repair, or another change of the row, will make it right."""
        return self in (Verdict.MISSING, Verdict.EXTRA, Verdict.STALE)


class Found(Message):
    """The keys of one verdict."""

    count: int = 0
    keys: tuple[tuple[str, ...], ...] = ()
    """The first of them, in the order of their ids."""


class Relation(Message):
    """What was found in one relation."""

    name: str
    """The table, link table, table of numbers or collection (without the graph's prefix)."""
    kind: RelationKind
    table: str
    """The table of the map that it belongs to."""
    equal: int = 0
    missing: Found = Found()
    extra: Found = Found()
    stale: Found = Found()
    parked: Found = Found()
    dead: Found = Found()
    pending: Found = Found()
    delayed: Found = Found()
    queued: int = 0
    """How many keys a repair has asked for; the next cycle makes them right. Numbers are right at once."""
    columns: dict[str, int] = Field(default_factory=dict)
    """Of a comparison with the shadow: how many rows, or points, differ in each column."""
    problem: str | None = None
    """Why it could not be compared, or repaired, to the end."""
    seconds: float = 0.0

    def found(self, verdict: Verdict) -> Found:
        """Return the keys of a verdict."""
        found: Found = getattr(self, verdict.value)
        return found

    @property
    def compared(self) -> int:
        """How many keys were looked at."""
        return self.equal + sum(self.found(verdict).count for verdict in Verdict)

    @property
    def damaged(self) -> int:
        """How many keys only a repair can make right."""
        return sum(self.found(verdict).count for verdict in Verdict if verdict.damage)


class Verification(Message):
    """What was found in one graph."""

    relations: tuple[Relation, ...] = ()
    shadow: bool = False
    """Whether the live result was compared with its shadow: then missing is what the shadow lacks, extra what
    it has alone, and stale what says something else in it."""
    behind: tuple[str, ...] = ()
    """Why a difference from the shadow may be none: what one of them has yet to do, in sentences."""
    not_compared: tuple[str, ...] = ()
    """What of the graph nothing is said about, and why, in sentences: its provider has tables of its own."""
    rescan: bool = False
    """Whether the cursors are of another write-db, so that the next cycle reads all rows again."""
    seconds: float = 0.0

    def naming(self, keys: int) -> Self:
        """Return the same with at most so many keys of each verdict."""
        relations = []
        for relation in self.relations:
            found = {verdict.value: relation.found(verdict) for verdict in Verdict}
            fewer = {name: one.model_copy(update={"keys": one.keys[:keys]}) for name, one in found.items()}
            relations.append(relation.model_copy(update=fewer))
        return self.model_copy(update={"relations": tuple(relations)})

    @property
    def differences(self) -> tuple[str, ...]:
        """In what the shadow differs, column by column, in words."""
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
        """How many keys were looked at."""
        return sum(relation.compared for relation in self.relations)

    @property
    def damaged(self) -> int:
        """How many keys only a repair can make right."""
        return sum(relation.damaged for relation in self.relations)

    @property
    def queued(self) -> int:
        """How many keys a repair has asked for, in all of its attempts."""
        return sum(relation.queued for relation in self.relations)
