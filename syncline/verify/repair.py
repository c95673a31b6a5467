"""Repair: asking for what is damaged, in portions that are committed with their line in the audit."""

import json
from collections.abc import Sequence

from syncline.engine.verify.template import sql
from syncline.errors import InputInvalid
from syncline.messages.verification import RelationKind, Verdict
from syncline.provider import GraphSchema
from syncline.verify.snapshots import Side, open_side
from syncline.verify.tally import Damage

__all__ = ["RelationRepair", "Repair"]


class Repair:
    """Who repairs a graph, and why. Raise InputInvalid if one of them is blank: the audit keeps both.

    `run_id` is that of the run that repairs, if one does: its attempts share their lines in the audit.
    `starter` is who has started it.
    """

    def __init__(
        self,
        target: GraphSchema,
        *,
        who: str,
        why: str,
        run_id: str | None = None,
        starter: str | None = None,
    ) -> None:
        self.target, self.who, self.why = target, who.strip(), why.strip()
        self.run_id, self.starter = run_id, starter
        self.earlier: dict[tuple[str, str], tuple[int, int]] = {}
        """Action and relation -> number and rows of the line that an earlier attempt has written."""
        if not self.who or not self.why:
            raise InputInvalid("To repair, say who you are and why: both are kept in the audit.")

    async def recall(self) -> None:
        """Read what earlier attempts of the run have asked for."""
        if self.run_id is None:
            return
        async with open_side(self.target, snapshot=True) as side:
            lines = await side.fetch(sql("audited"), self.run_id)
        self.earlier = {
            (line["action"], line["table_name"]): (line["number"], line["rows"]) for line in lines
        }

    def of(self, name: str, kind: RelationKind) -> "RelationRepair":
        """Return the repair of one relation."""
        return RelationRepair(self, name, kind)


class RelationRepair:
    """The repair of one relation: one line in the audit, which counts up with every portion."""

    def __init__(self, repair: Repair, name: str, kind: RelationKind) -> None:
        self._repair, self._name, self._action = repair, name, f"repair {kind.value}"
        self._line: int | None
        self._line, self.asked = repair.earlier.get((self._action, name), (None, 0))
        """`asked`: for how much an earlier attempt has asked."""

    async def rows(self, table: str, damage: Sequence[Damage]) -> int:
        """Ask for rows of a table by key; return how many were not asked for already."""
        by_id = {row_id: key for row_id, key, _ in damage}
        async with open_side(self._repair.target, snapshot=False) as side:
            [row] = await side.fetch(
                sql("requeue"), table, list(by_id), [json.dumps(key) for key in by_id.values()]
            )
            return await self.audit(side, row["count"])

    async def points(self, collection: str, damage: Sequence[Damage]) -> int:
        """Owe the vector store these points; return how many."""
        ids = [row_id for row_id, _, _ in damage]
        rewritten = [row_id for row_id, _, verdict in damage if verdict is not Verdict.EXTRA]
        async with open_side(self._repair.target, snapshot=False) as side:
            # Before any row is locked: a batch that queues some of them, and holds the counts of what it
            # queued, is waited for with nothing in its way.
            await side.connection.execute("LOCK TABLE sync_outbox IN SHARE ROW EXCLUSIVE MODE")
            [row] = await side.fetch(sql("requeue_points"), collection, ids, rewritten)
            return await self.audit(side, row["count"])

    async def audit(self, side: Side, rows: int) -> int:
        """Add to the relation's line in the audit within the caller's transaction; return `rows`."""
        if not rows:
            return 0
        if self._line is None:
            repair = self._repair
            who = repair.who, self._action, repair.why
            of_run = repair.run_id, repair.starter
            [line] = await side.fetch(sql("audit"), *who, self._name, rows, *of_run)
            self._line = line["number"]
        else:
            await side.fetch(sql("audit_more"), self._line, rows)
        return rows
