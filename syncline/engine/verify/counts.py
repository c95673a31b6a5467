"""Counts: how much the books say waits, was refused and is owed, compared with what is counted again."""

from uuid import UUID

from syncline.engine.verify.numbers import take_graph
from syncline.engine.verify.repair import RelationRepair
from syncline.engine.verify.snapshots import open_side
from syncline.engine.verify.tally import Tally
from syncline.engine.verify.template import sql
from syncline.provider import GraphSchema
from syncline.verification import Verdict

__all__ = ["KEPT_COUNTS", "compare_counts", "mend_counts"]

KEPT_COUNTS = "sync_count"


async def compare_counts(target: GraphSchema, tally: Tally) -> None:
    """Compare all kept counts with what is there at one moment, and note those that differ."""
    async with open_side(target, snapshot=True) as side:
        for row in await side.fetch(sql("counts_found")):
            if row["same"]:
                tally.same()
                continue
            key = (row["counted"], row["name"], *(["refused"] if row["refused"] else []))
            await tally.note(Verdict.STALE, key, UUID(int=0))


async def mend_counts(target: GraphSchema, repair: RelationRepair) -> int:
    """Set all kept counts right that differ, and return how many did.

    Raise StoreUnavailable if a cycle has had the graph for too long: it changes what is counted.
    """
    async with open_side(target, snapshot=False) as side:
        await take_graph(side, target, "so what its books hold was not counted again")
        await side.connection.execute(sql("counts_lock"))
        [row] = await side.fetch(sql("counts_mend", found=sql("counts_found")))
        return await repair.audit(side, row["count"])
