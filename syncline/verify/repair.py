"""Repair: requests damaged rows and points, in portions committed with their audit record."""

import json
from collections.abc import Sequence

from syncline.control.audit import Actor
from syncline.messages.verification import RelationKind, Verdict
from syncline.provider import GraphSchema
from syncline.sql import quoted, statements_of
from syncline.verify.snapshots import Side, open_side
from syncline.verify.tally import Damage

__all__ = ["RelationRepair", "Repair"]

_sql = statements_of("syncline.verify")


class Repair:
    """A graph's repair. Raises InputInvalid if the actor's name or reason is blank: the audit keeps both.

    All attempts of the actor's run, if any, share their audit records.
    """

    def __init__(
        self, target: GraphSchema, actor: Actor, *, verb: str = "repair", extras_only: bool = False
    ) -> None:
        """`extras_only`: of rows and points, and only those that should not be there, are requested."""
        self.target, self.actor, self.verb = target, actor.required(verb), verb
        self._extras_only = extras_only
        self._relations: dict[tuple[str, RelationKind], RelationRepair] = {}
        kinds = (RelationKind.ROWS, RelationKind.VECTORS) if extras_only else tuple(RelationKind)
        self.kinds = frozenset(kinds)
        """What it repairs."""
        self.earlier: dict[tuple[str, str], tuple[int, int]] = {}
        """(action, relation) -> number and rows of an earlier attempt's audit record."""

    def chosen(self, damage: Sequence[Damage]) -> Sequence[Damage]:
        """Return what of the damage it repairs."""
        if not self._extras_only:
            return damage
        return [found for found in damage if found[2] is Verdict.EXTRA]

    async def recall(self) -> None:
        """Read what earlier attempts of the run have requested."""
        if self.actor.run_id is None:
            return
        async with open_side(self.target, snapshot=True) as side:
            lines = await side.fetch(_sql("audited"), self.actor.run_id)
        self.earlier = {
            (line["action"], line["table_name"]): (line["number"], line["rows"]) for line in lines
        }

    def of(self, name: str, kind: RelationKind) -> "RelationRepair":
        """Return the repair of one relation: always the same, since it has one audit record."""
        return self._relations.setdefault((name, kind), RelationRepair(self, name, kind))


class RelationRepair:
    """The repair of one relation: one audit record, updated with every portion."""

    def __init__(self, repair: Repair, name: str, kind: RelationKind) -> None:
        self._repair, self._name, self._action = repair, name, f"{repair.verb} {kind.value}"
        self._line: int | None
        self._line, self.asked = repair.earlier.get((self._action, name), (None, 0))
        """`asked`: how much an earlier attempt requested."""

    async def rows(self, table: str, damage: Sequence[Damage]) -> int:
        """Request rows of a table by key; return how many were not requested already."""
        by_id = {row_id: key for row_id, key, _ in self._repair.chosen(damage)}
        if not by_id:
            return 0
        async with open_side(self._repair.target, snapshot=False) as side:
            [row] = await side.fetch(
                _sql("requeue"), table, list(by_id), [json.dumps(key) for key in by_id.values()]
            )
            return await self.audit(side, row["count"])

    async def release(self, table: str) -> int:
        """Let go of the rows that cycles have withheld from removal; return how many were not requested."""
        async with open_side(self._repair.target, snapshot=False) as side:
            [there] = await side.fetch(_sql("withheld_there"), quoted(self._repair.target.schema))
            if not there[0]:
                return 0
            [row] = await side.fetch(_sql("release_withheld"), table)
            return await self.audit(side, row["count"])

    async def points(self, collection: str, damage: Sequence[Damage]) -> int:
        """Queue points for the vector store; return how many."""
        damage = self._repair.chosen(damage)
        if not damage:
            return 0
        ids = [row_id for row_id, _, _ in damage]
        rewritten = [row_id for row_id, _, verdict in damage if verdict is not Verdict.EXTRA]
        async with open_side(self._repair.target, snapshot=False) as side:
            # Before any row lock: this waits for a batch that queues such entries, and holds their counts,
            # without blocking it.
            await side.connection.execute("LOCK TABLE sync_outbox IN SHARE ROW EXCLUSIVE MODE")
            [row] = await side.fetch(_sql("requeue_points"), collection, ids, rewritten)
            return await self.audit(side, row["count"])

    async def audit(self, side: Side, rows: int) -> int:
        """Update the relation's audit record in the caller's transaction; return `rows`."""
        if not rows:
            return 0
        if self._line is None:
            actor = self._repair.actor
            who = actor.who, self._action, actor.why
            of_run = actor.run_id, actor.starter
            [line] = await side.fetch(_sql("audit"), *who, self._name, rows, *of_run)
            self._line = line["number"]
        else:
            await side.fetch(_sql("audit_more"), self._line, rows)
        return rows
