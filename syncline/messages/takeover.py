"""Takeover: how a target that somebody else filled compares with what a first sync would write."""

from collections.abc import Iterator

from pydantic import Field

from syncline.messages.base import Message
from syncline.messages.verification import Relation, RelationKind, Verdict, Verification
from syncline.quoting import counted

__all__ = ["StrangeRows", "Takeover"]


class StrangeRows(Message):
    """Rows of one target that a sync would write once more, since it finds no row by the map's id."""

    table: str
    count: int
    unreadable: int = 0
    """Those of them whose key cannot be read."""
    keys: tuple[tuple[str, ...], ...] = ()
    """The first keys; empty for one that cannot be read."""
    ids: tuple[str, ...] = ()
    """The ids under which these rows stand."""
    way_out: str = ""
    """What mends it, in a sentence with the map's line or the statements."""


class Takeover(Message):
    """Findings of one graph whose target was filled before its first sync."""

    graph: str
    dry_run: bool = True
    found: Verification
    """Missing and stale is what the first sync writes; extra is what the write-db does not have."""
    strange: tuple[StrangeRows, ...] = ()
    unlisted: dict[str, int] = Field(default_factory=dict)
    """Table whose rows are listed -> rows there that a sync does not take over: they are nobody's of the
    write-db, and stay."""
    stubs: dict[str, int] = Field(default_factory=dict)
    """Table -> rows there that stand for missing ones as stubs of this map do: they are not extra."""
    unlisted_links: dict[str, int] = Field(default_factory=dict)
    """Link table without `owned: ours` -> links of such rows there: the first sync removes those that the
    array of a row that it takes over does not name."""
    delete_extra: bool = False
    asked: int = 0
    """Extra rows and points that were requested to be deleted by the next cycle."""
    kept_vectors: int = 0
    """Points whose vectors were taken for those of the texts that stand there."""

    def _of(self, *kinds: RelationKind) -> Iterator[Relation]:
        return (relation for relation in self.found.relations if relation.kind in kinds)

    @property
    def written(self) -> int:
        """Rows and links that the first sync writes."""
        of = self._of(RelationKind.ROWS, RelationKind.LINKS)
        return sum(one.missing.count + one.stale.count for one in of)

    @property
    def extra_rows(self) -> int:
        """Rows that the write-db does not have. They stay, unless they are asked to be deleted."""
        return sum(one.extra.count for one in self._of(RelationKind.ROWS))

    @property
    def extra_points(self) -> int:
        """Points without a row. They stay likewise."""
        return sum(one.extra.count for one in self._of(RelationKind.VECTORS))

    @property
    def extra_links(self) -> int:
        """Links that the arrays of their rows do not name: the first sync removes them."""
        return sum(one.extra.count for one in self._of(RelationKind.LINKS))

    @property
    def strange_rows(self) -> int:
        """Rows under other ids than the map's."""
        return sum(one.count for one in self.strange)

    @property
    def equal(self) -> bool:
        """Whether the target is what a sync would make of the source."""
        return self.found.equal and not self.strange

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why nothing is taken over, in sentences."""
        refused = []
        if self.strange:
            refused.append(
                f"{counted(self.strange_rows, 'row')} would be doubled: no row stands under the map's id."
            )
        if self.extra_links and not self.delete_extra:
            refused.append(
                f"The first sync removes {counted(self.extra_links, 'link')} that no array names: give "
                "--delete-extra, or let the map say who owns these links."
            )
        for table, links in self.unlisted_links.items():
            if not self.delete_extra:
                refused.append(
                    f"The first sync removes those of {counted(links, 'link')} in {table} that the array of "
                    "a row in no list yet does not name, and none can be compared before: give "
                    "--delete-extra, or let the map say `owned: ours`."
                )
        if not self.found.complete:
            refused.append("Not everything could be compared.")
        return tuple(refused)

    def sentences(self) -> Iterator[str]:
        """Yield what the takeover does, a sentence each."""
        of = list(self._of(RelationKind.ROWS, RelationKind.LINKS))
        pending = sum(one.found(Verdict.PENDING).count for one in of)
        if self.written:
            yield f"It writes {self.written:,} of the rows and links."
        for table, rows in self.unlisted.items():
            yield (
                f"{table} has {counted(rows, 'row')} of no source row, by id or natural key: others may have "
                "rows there, so these stay."
            )
        for table, rows in self.stubs.items():
            yield f"{table} has {counted(rows, 'row')} that stand for missing ones: stubs from now on."
        points = sum(one.missing.count + one.stale.count for one in self._of(RelationKind.VECTORS))
        if points:
            yield (
                f"It writes {counted(points, 'point')} of rows that stand there; "
                "a text is embedded unless its vector is known."
            )
        if self.extra_links:
            yield f"The first sync removes {counted(self.extra_links, 'link')} that no array names."
        for number, what in ((self.extra_rows, "row"), (self.extra_points, "point")):
            if number:
                fate = "is deleted" if self.delete_extra else "stays; `--delete-extra` deletes"
                yield f"{counted(number, what)} that the write-db does not have {fate}."
        if pending:
            yield f"A cycle brings {counted(pending, 'row')} more, changed just now."
